"""Sources of rows, and the checks that every row passes before a model sees it."""
