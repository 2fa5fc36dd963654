"""What repeats exactly: documents of which one stays, blocks that are all over the place."""
