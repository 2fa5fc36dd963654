"""Real runs of the tiny chain that are killed, starved and poisoned, then run once more and compared, file by file."""
