"""Near-duplicates: texts that share most of their word 3-grams, pictures that look alike."""
