"""What evaluation sets hold."""
