"""Rows on disk, read on demand."""
