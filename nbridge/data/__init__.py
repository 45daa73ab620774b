"""Data sources, and the validation of rows before they reach a model."""
