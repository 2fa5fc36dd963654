"""`python usage.py RESULT COMMAND ...`: runs a command and writes what it cost with all that it started, as JSON.

CPU seconds are those that the kernel counts for ended children, orphans too: this process adopts them. Memory is looked
at five times a second: of the whole tree the proportional set size (a page shared by n processes counts 1/n in each),
and of its largest process the resident set.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
LOOK_SECONDS = 0.2


def main() -> None:
    """Run the command to its end, and to that of all it started."""
    result, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    process = subprocess.Popen(command)
    tree_kb, one_kb, code = 0, 0, None
    while True:
        tree, one = memory_kb(os.getpid())
        tree_kb, one_kb = max(tree_kb, tree), max(one_kb, one)
        try:
            ended, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if ended == process.pid:
            code = os.waitstatus_to_exitcode(status)
        elif not ended:
            time.sleep(LOOK_SECONDS)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    facts = {
        "code": code,
        "wall_seconds": time.monotonic() - began,
        "user_seconds": used.ru_utime,
        "system_seconds": used.ru_stime,
        "peak_tree_mb": tree_kb / 1024,
        "peak_process_mb": one_kb / 1024,
    }
    Path(result).write_text(json.dumps(facts))


def memory_kb(root: int) -> tuple[int, int]:
    """Return the proportional set sizes of all descendants of `root` together, and the largest resident set of one."""
    together, largest = 0, 0
    for process in descendants(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has just ended
        sizes = {line.split()[0]: int(line.split()[1]) for line in lines[1:] if len(line.split()) == 3}
        together += sizes.get("Pss:", 0)
        largest = max(largest, sizes.get("Rss:", 0))
    return together, largest


def descendants(root: int) -> list[int]:
    """Return the processes below `root`."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 -- names are all that is needed, five times a second
        if entry.isdecimal():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry))
    found, left = [], [root]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


if __name__ == "__main__":
    main()
