"""Local web page for exploring a trained model: set some modalities and see the others imputed."""
