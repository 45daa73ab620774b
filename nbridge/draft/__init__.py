"""Drafts of specs from raw data, and checks of a spec against its data."""
