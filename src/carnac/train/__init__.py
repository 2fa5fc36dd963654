"""Batches and a model -> checkpoints, metrics, a loss curve. Knows no model by name: it is handed one."""
