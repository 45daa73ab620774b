"""Helpers independent of models and data: messages, warnings, atomic file writes, hashing and free memory."""
