"""Units, keys, one-rename commits, manifests and a pool of processes. Knows units, not pages."""
