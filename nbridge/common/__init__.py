"""Helpers that know nothing of models or data: messages, warnings, atomic files, hashes and free memory."""
