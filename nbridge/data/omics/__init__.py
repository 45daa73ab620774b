"""AnnData and MuData, in files or in memory."""
