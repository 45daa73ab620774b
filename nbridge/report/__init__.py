"""The HTML report of a run: its spec, training curves, and imputations on held-out rows."""
