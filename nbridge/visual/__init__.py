"""Building blocks of HTML pages: colours, PNG images, PCA of the latent space, and how modalities are displayed."""
