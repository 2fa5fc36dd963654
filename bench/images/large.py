"""The acceptance run at its full size: 20,000 good pictures, with kills, and its figures."""

from __future__ import annotations

import statistics
from collections import Counter
from itertools import pairwise
from pathlib import Path

from fetching_acceptance import (
    HTTP,
    Outcome,
    Scale,
    acceptance,
    forbidden_requests,
    impolite,
    needless_repeats,
    repeats,
    wrong_bytes,
    wrong_states,
)
from fetching_network import can_make_network

SCALE = Scale(
    num_hosts=200,
    pictures_per_host=100,
    num_others=2,
    kills=(3_000, 9_000, 15_000),
    http={**HTTP, "rounds": 3, "num_connections": 32, "urls_per_unit": 1000, "unit_seconds": 300.0},
    limit_seconds=1800.0,
)
CHECKS = (wrong_states, wrong_bytes, forbidden_requests, impolite, needless_repeats)


def accept_large(folder: Path) -> None:
    """Do the run and print its figures. Raises SystemExit where something is wrong."""
    outcome = acceptance(folder, SCALE, is_isolated=can_make_network())
    wrong = [finding for check in CHECKS for finding in check(outcome)]
    for line in figures(outcome):
        print(line)
    if wrong:
        raise SystemExit("\n".join([f"{len(wrong)} things are wrong:", *wrong[:40]]))


def figures(outcome: Outcome) -> list[str]:
    """Return what a run came to, in lines."""
    requests, rows = outcome.seen.requests, outcome.rows.values()
    good = sum(link.picture is not None for link in outcome.links)
    images = [one for one in requests if not one.is_robots]
    spacing = [
        after.began - before.began
        for host, some in outcome.seen.by_host().items()
        if host.startswith("good-")
        for before, after in pairwise(some)
    ]
    fifth, *_, last = statistics.quantiles(spacing, n=20)
    reasons = Counter(row["reason"] for row in rows if row["status"] != "kept")
    kept = sum(row["status"] == "kept" for row in rows)
    kills = ", ".join(f"{number:,}" for number in outcome.scale.kills)
    allowed = outcome.num_slots * len(outcome.kills)
    delay = outcome.http["delay_seconds"]
    network = "a network of its own, nothing loosened" if outcome.is_isolated else "loopback, private addresses allowed"
    return [
        f"{len(outcome.seen.by_host())} hosts, {len(outcome.links):,} URLs, {good:,} of them good; {network}",
        f"{kept:,} kept; others: {', '.join(f'{number} {reason}' for reason, number in reasons.most_common())}",
        f"{len(requests):,} requests, {len(requests) - len(images)} of them for robots.txt",
        f"{len(outcome.seen.connections):,} connections",
        f"killed after {kills} requests; {len(repeats(outcome))} of good pictures repeated, {allowed} allowed",
        f"between starts on a good host 5 % below {fifth:.3f} s, 5 % above {last:.3f} s; wanted {delay} s",
        f"runs took {', '.join(f'{run.seconds:.0f} s' for run in outcome.runs)}",
    ]
