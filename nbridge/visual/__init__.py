"""What pages show: colours, PNG images, planes through a latent space, and kinds of modalities."""
