"""WARC files -> HTTP responses, safe on damaged input. Read by `web` (pages) and by the images job (pictures)."""
