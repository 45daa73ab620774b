"""One stage of training: its rows, its validation, and the loop from its first update to its best weights."""
