"""Costs of fetching the same URLs -> lines of a table, ratios round by round."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path

from images.peers import AS_RECEIVED, DECODED, WAYS, Cost, Way, cost_of, quick_server, urls_of

SIZES = (10_000, 100_000)


def compare(folder: Path, peer: Path, num_urls: int, rounds: int) -> None:
    """Run all ways in turns and print what an image costs with each, and the ratios of pairs that do the same."""
    costs: dict[tuple[str, str], list[Cost]] = {}
    with quick_server(folder / "web")() as server:
        urls = urls_of(server, num_urls)
        for number in range(rounds):
            for way in WAYS[number % 2 :] + WAYS[: number % 2]:
                cost = cost_of(way, server, urls, folder / "run", peer)
                costs.setdefault((way.name, way.done), []).append(cost)
                print(f"round {number + 1}, {way.name}, {way.done}: {_told(cost)}", flush=True)
    load = " ".join(f"{load:.1f}" for load in os.getloadavg())
    print(f"\n{num_urls:,} URLs, {rounds} rounds in turns, load {load}\n")
    print("| | images kept | ms of CPU per image | images per CPU second | peak of the tree, MB |")
    print("| --- | --: | --: | --: | --: |")
    for way in WAYS:
        print(_row(way, costs[way.name, way.done]))
    print()
    for done in (AS_RECEIVED, DECODED):
        ratio = _ratio(costs["carnac", done], costs["img2dataset", done])
        print(f"{done}: carnac keeps {ratio} times as many images per CPU second (wanted >= 1.5)")


def grow(folder: Path) -> None:
    """Run carnac over ten times the URLs and print its peaks of memory."""
    with quick_server(folder / "web")() as server:
        for way in (way for way in WAYS if way.is_ours):
            peaks = []
            for size in SIZES:
                cost = cost_of(way, server, urls_of(server, size), folder / "run", Path())
                peaks.append(cost)
                print(f"{way.done}, {size:,} URLs: {_told(cost)}", flush=True)
            small, large = peaks
            print(
                f"{way.done}: {large.peak_tree_mb / small.peak_tree_mb:.2f} times the memory of the tree, "
                f"{large.peak_process_mb / small.peak_process_mb:.2f} of the largest process"
            )


def _told(cost: Cost) -> str:
    return (
        f"{cost.kept:,} kept, {cost.cpu_seconds:.1f} s of CPU, {cost.wall_seconds:.1f} s, tree {cost.peak_tree_mb:.0f} "
        f"MB, largest process {cost.peak_process_mb:.0f} MB, {cost.output_mb:.0f} MB written"
    )


def _row(way: Way, costs: Sequence[Cost]) -> str:
    rates = [cost.kept / cost.cpu_seconds for cost in costs]
    rate = statistics.median(rates)
    spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
    peak = statistics.median(cost.peak_tree_mb for cost in costs)
    return f"| {way.name}, {way.done} | {costs[0].kept:,} | {1000 / rate:.2f} | {rate:,.0f} ({spread}) | {peak:.0f} |"


def _ratio(ours: Sequence[Cost], theirs: Sequence[Cost]) -> str:
    ratios = [
        (mine.kept / mine.cpu_seconds) / (other.kept / other.cpu_seconds)
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
