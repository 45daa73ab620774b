"""Search for better options of a spec (`nbridge tune`)."""
