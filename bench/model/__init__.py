"""The model beside transformers' own classes: forward and backward, memory, and what the head at labels saves."""
