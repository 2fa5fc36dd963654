"""A disk that is full, an output that cannot be written: the run ends with a sentence, and goes on once it is mended.

A full disk is a small tmpfs where this user may mount one, else a limit on the size of files. Root may write anywhere:
a run of root is started without that right.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from faults.chain import OUT, Chain, Subject
from faults.verdict import Verdict, Wrong, check_clean_run, check_sentence

FULL, READ_ONLY = "disk full", "read-only output"
PAGE_BYTES = 4096
ROOMY = "512m"


def fill_disk(chain: Chain, subject: Subject, draw: random.Random) -> Verdict:
    """Run the stage on a disk that ends after a random share of what it writes, make room, run it again."""
    share = 0.9 * draw.random()
    if not may_mount(chain.root):
        return _limit_files(chain, subject, share)
    trial = chain.root / f"{subject.name}-full"
    with _small_disk(trial):
        wrong = ""
        try:
            chain.trial(subject, trial)
            used = _used_bytes(trial)
            pages = sum(-(-path.stat().st_size // PAGE_BYTES) for path in _written(chain, subject))
            _remount(trial, str(used + int(share * pages) * PAGE_BYTES))
            check_sentence(chain.start(trial, subject.recipe), ["No space left on device"])
            _remount(trial, ROOMY)
            check_clean_run(chain, subject, trial)
        except Wrong as finding:
            wrong = str(finding)
    return Verdict(stage=subject.name, fault=FULL, wrong=wrong, note=f"at {share:.0%} of its bytes")


def _limit_files(chain: Chain, subject: Subject, share: float) -> Verdict:
    largest = int(share * max(path.stat().st_size for path in _written(chain, subject)))
    trial = chain.trial(subject)

    wrong = ""
    try:
        check_sentence(chain.start(trial, subject.recipe, file_bytes=largest), ["File too large"])
        check_clean_run(chain, subject, trial)
        chain.discard(trial)
    except Wrong as finding:
        wrong = f"{finding} (in {trial.name})"
    return Verdict(stage=subject.name, fault=FULL, wrong=wrong, note=f"files of at most {largest:,} bytes")


def forbid(chain: Chain, subject: Subject, which: str) -> Verdict:
    """Run the stage where its folder, or the one above (`which` "parent"), is read-only; mend it, run it again."""
    trial = chain.trial(subject)
    folder = trial / OUT / subject.folders[0]
    folder.mkdir(parents=True, exist_ok=True)
    if which == "parent" and not subject.keeps:
        folder.rmdir()
        folder = folder.parent
    folder.chmod(0o555)
    wrong = ""
    try:
        check_sentence(chain.start(trial, subject.recipe, rights="plain"), [str(folder.relative_to(trial))])
    except Wrong as finding:
        wrong = f"{finding} (in {trial.name})"
    folder.chmod(0o755)
    try:
        check_clean_run(chain, subject, trial)
    except Wrong as finding:
        wrong = wrong or f"{finding} (in {trial.name})"
    if not wrong:
        chain.discard(trial)
    return Verdict(stage=subject.name, fault=READ_ONLY, wrong=wrong, note=f"the {which}")


@cache
def may_mount(root: Path) -> bool:
    """Say whether this user may mount a tmpfs below `root`."""
    with _small_disk(root / "mounted") as mounted:
        return mounted


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    folder.mkdir()
    mounted = _runs("mount", "-t", "tmpfs", "-o", f"size={ROOMY}", "tmpfs", str(folder))
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _remount(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def _runs(*command: str) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False


def _used_bytes(folder: Path) -> int:
    facts = os.statvfs(folder)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def _written(chain: Chain, subject: Subject) -> list[Path]:
    """Return the files that the stage writes."""
    found = []
    for name in subject.folders:
        for folder, names, files in os.walk(chain.whole / OUT / name):
            names[:] = [each for each in names if each not in subject.keeps]
            found += [Path(folder, file) for file in files]
    return found
