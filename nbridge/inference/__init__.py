"""What a trained model is worth at serving: scores of hidden modalities, and the free baseline that they are compared with."""
