"""A folder of images in words and figures, for a terminal and for a page alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from carnac.report.images import Images, retries_of
from carnac.report.images_rounds import ENDS, Fetching, Rate
from carnac.report.images_table import SIDES_PX, SIZES_KB, Bin, Host
from carnac.report.layout import Facts, Figures, flat, percent
from carnac.report.training_facts import duration

MAX_NAME = 40  # characters of a host's name in a table


def facts(images: Images) -> Facts:
    """Return all there is to say of a folder but for its headline: lines, and the tables that have rows."""
    table = images.table
    of = "" if table.is_whole else f", in the first {table.num_rows:,} of {table.total_rows:,} URLs"
    every = (
        _states(images, f"states{of}"),
        _bins(f"formats{of}", "format", table.formats),
        _bins(f"sizes{of}", "shorter side, px", ranges(table.sides, SIDES_PX)),
        _bins(f"bytes{of}", "kB", ranges(table.sizes, SIZES_KB)),
        _hosts(f"hosts with most URLs{of}", table.largest_hosts),
        _hosts(f"hosts with most URLs that gave no image{of}", table.failing_hosts),
        _rounds(images.fetching),
    )
    return Facts(lines=tuple(_lines(images)), tables=tuple(figures for figures in every if figures.rows))


def ranges(bins: Mapping[int, Bin], ends: Sequence[int]) -> dict[str, Bin]:
    """Return bins, known by their lower ends, by what a reader calls them, with empty ones between them."""
    if not bins:
        return {}
    inside = [end for end in ends if min(bins) <= end <= max(bins)]
    after = dict(pairwise(ends))
    names = {end: f"{end:,} to {after[end] - 1:,}" if end in after else f"{end:,} and more" for end in inside}
    return {names[end]: bins.get(end, Bin()) for end in inside}


def _lines(images: Images) -> Iterator[tuple[str, str]]:
    stored = sum(state.stored_bytes for state in images.table.states)
    received = sum(state.received_bytes for state in images.table.states)
    if stored:
        yield "stored", _megabytes(stored)
    if received:
        yield "received over HTTP", _megabytes(received)
    if (found := images.fetching) is not None:
        some = "" if found.num_read == found.num_units else f", of which {found.num_read:,} are looked at"
        yield "fetching", f"{found.num_units:,} units{some}: {duration(found.seconds)} of work"
    if found is not None and found.seconds:
        yield (
            "in a second, each unit",
            f"{_rate(found.images_per_second, 1)} images, {_rate(found.bytes_per_second, 1e6)} MB",
        )
    if images.retries.get("all"):
        asked = ", ".join(f"{retry} {number:,}" for retry, number in images.retries.items() if number)
        first = next(retry for retry, number in images.retries.items() if number)
        yield "again, with --retry", f"{asked} URLs: {images.command} {first}"


def _rate(rate: Rate, unit: float) -> str:
    low, median, high = (_short(value / unit) for value in (rate.low, rate.median, rate.high))
    return median if low == high else f"{median} (a tenth below {low}, a tenth above {high})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _states(images: Images, title: str) -> Figures:
    table = images.table
    rows = tuple(
        (
            " ".join(filter(None, (state.status, state.reason))),
            f"{state.number:,}",
            percent(state.number / table.num_rows),
            _megabytes(state.received_bytes, ""),
            _megabytes(state.stored_bytes, ""),
            retries_of(state),
        )
        for state in table.states
    )
    return Figures(title=title, head=("state", "URLs", "share", "MB received", "MB stored", "--retry"), rows=rows)


def _bins(title: str, name: str, bins: Mapping[str, Bin]) -> Figures:
    whole = sum(found.number for found in bins.values())
    rows = tuple(
        (each, f"{found.number:,}", percent(found.number / whole), _megabytes(found.stored_bytes, ""))
        for each, found in bins.items()
    )
    return Figures(title=title, head=(name, "images", "share", "MB"), rows=rows)


def _hosts(title: str, hosts: Sequence[Host]) -> Figures:
    rows = tuple(
        (
            flat(host.name, MAX_NAME) or "(none)",
            f"{host.number:,}",
            *(_number(host.of(status)) for status in ("kept", "dropped", "deferred")),
            _megabytes(host.received_bytes, ""),
            host.commonest,
        )
        for host in hosts
    )
    head = ("host", "URLs", "kept", "dropped", "deferred", "MB received", "mostly")
    return Figures(title=title, head=head, rows=rows)


def _rounds(fetching: Fetching | None) -> Figures:
    found = () if fetching is None else fetching.rounds
    rows = tuple(
        (
            f"{each.number}",
            f"{each.num_units:,}",
            f"{each.num_urls:,}",
            *(_number(each.ends[end]) for end in ENDS),
            "" if each.later is None else _number(each.later),
            f"{each.requests:,}",
            _number(each.robots_requests),
            _megabytes(each.received_bytes, ""),
            each.retry,
        )
        for each in found
    )
    head = ("round", "units", "URLs", *ENDS, "later", "requests", "robots.txt", "MB received", "--retry")
    told = [place for place in range(len(head)) if any(row[place] for row in rows)]
    return Figures(
        title="rounds of fetching",
        head=tuple(head[place] for place in told),
        rows=tuple(tuple(row[place] for place in told) for row in rows),
    )


def _number(number: int) -> str:
    return f"{number:,}" if number else ""


def _megabytes(number: int, unit: str = " MB") -> str:
    return f"{number / 1e6:,.2f}{unit}" if number else ""
