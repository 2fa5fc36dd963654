"""What the extraction of pages costs, and what it finds, beside other extractors: `scripts/bench extraction`."""
