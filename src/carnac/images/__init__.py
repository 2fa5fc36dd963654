"""Image URLs -> packs: bytes inspected, fetched where the recipe says so, and stored by their hash."""
