"""Packed training beside a plain language model, padding and transformers' Idefics2; what waiting for data costs."""
