"""A prompt with pictures -> an answer."""
