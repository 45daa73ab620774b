"""Runs: training from a spec into a folder, and comparison of several models."""
