"""Generation beside transformers' `generate`, on the same exported model."""
