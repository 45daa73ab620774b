"""A page in the browser, on this machine alone, on which a trained model is asked: give it some modalities, see it fill in the others."""
