"""Training: one trainer for all models, its state on disk, and the parts that a spec names."""
