"""Shards to a plan, plan to packed batches."""
