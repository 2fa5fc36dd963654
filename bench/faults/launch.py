"""`python launch.py FILE_BYTES RIGHTS COMMAND ...`: becomes COMMAND, under a limit, without a right.

FILE_BYTES is the largest file that it may write (-1: any). With RIGHTS "plain", root loses the right to write where
permissions say no (CAP_DAC_OVERRIDE). In a process of its own: between fork and exec a process with threads may do
neither.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

CAPBSET_DROP, CAP_DAC_OVERRIDE = 24, 1  # prctl(2), capabilities(7)


def main() -> None:
    """Limit this process and become the command."""
    file_bytes, rights, *command = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash on purpose is to leave no core file
    if int(file_bytes) >= 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(file_bytes), int(file_bytes)))
    drops = rights == "plain" and os.geteuid() == 0
    if drops and ctypes.CDLL(None, use_errno=True).prctl(CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "root's CAP_DAC_OVERRIDE cannot be given up here")
    os.execv(command[0], command)  # noqa: S606 -- fixed by the suite


if __name__ == "__main__":
    main()
