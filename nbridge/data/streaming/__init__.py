"""Rows on disk, read where they are asked for."""
