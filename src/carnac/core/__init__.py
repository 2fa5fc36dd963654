"""Words that every floor may use: the document, the piece, the batch, errors and seeds."""
