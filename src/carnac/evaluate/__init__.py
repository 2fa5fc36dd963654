"""A model as a function -> numbers with their error bars. Knows no torch."""
