"""A process of its own that takes batches ahead and never ends by itself: `python ahead_run.py PICKLED_READER`."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path

from carnac.mix.ahead import BatchesAhead

if __name__ == "__main__":
    reader = pickle.loads(Path(sys.argv[1]).read_bytes())  # noqa: S301 -- written by the test
    with BatchesAhead(reader, range(200), workers=2) as batches:
        batches(0)
        print(*(worker._process.pid for worker in batches._workers), flush=True)
        time.sleep(600)
