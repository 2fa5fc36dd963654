"""Documents to training samples."""
