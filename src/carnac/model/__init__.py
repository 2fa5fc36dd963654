"""A vision tower, a connector and a language model, joined: pictures and ids in, logits out."""
