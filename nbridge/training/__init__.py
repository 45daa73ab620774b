"""Training: one trainer for all models, its state on disk, and the builder of models and data from a spec."""
