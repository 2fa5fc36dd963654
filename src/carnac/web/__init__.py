"""Web pages -> documents: text blocks and images in reading order."""
