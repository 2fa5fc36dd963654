"""Samples to ids, labels, image slots and pixels, and back to text."""
