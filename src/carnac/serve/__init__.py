"""Talk to a model, and ship it."""
