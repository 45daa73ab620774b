"""Runs: from a spec to a trained model in a folder, and several of them compared."""
