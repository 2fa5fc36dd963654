"""Signals: what they are, how they are measured, and how stored ones are read as arrays."""
