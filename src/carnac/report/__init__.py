"""What a run made, for the eyes: in a terminal and as one page."""
