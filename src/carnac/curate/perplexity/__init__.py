"""A language model of n-grams of your own corpus, and what it says of a text."""
