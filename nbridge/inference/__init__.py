"""Imputation, generation and embedding with trained models, predictive intervals, calibration, and scores of hidden modalities."""
