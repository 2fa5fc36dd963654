"""Recipes: TOML in, frozen settings out, every mistake at once."""
