"""A run as one page of HTML: what was trained, how it went, and what the model fills in on rows that it has not seen."""
