"""Models: one module per paper, with the base classes and building blocks that they share."""
