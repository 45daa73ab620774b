"""Images in files, and tables beside them."""
