"""Texts read once, fast: words, counts, repetition, and the lists and models that words are looked up in."""
