"""Gated cross-attention between the layers of a language model: Flamingo's way, over any family (Idefics)."""
