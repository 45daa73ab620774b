"""Image files, and tables of image paths."""
