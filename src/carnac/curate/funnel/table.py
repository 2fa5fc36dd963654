"""A tally as a table: what a part of `funnel/` holds, so that tallies of parts can be added up elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from carnac.curate.funnel.samples import Pick
from carnac.curate.funnel.tally import Histogram, Tally
from carnac.curate.masks import GivesReasons

# `what` a row is: the amounts that a pass "kept" (0: what came in; pass n is n + 1), those that reason `name` of a pass
# "taken", the "histogram" of its rule, a "sample" of what `name` took or nearly took. Passes and rules count from 0.
TALLIES = pa.schema(
    [
        ("what", pa.string()),
        ("step", pa.int16()),
        ("name", pa.string()),
        ("amounts", pa.list_(pa.int64())),
        ("rule", pa.int16()),
        ("bins", pa.list_(pa.int32())),
        ("words", pa.list_(pa.string())),
        ("num_kept", pa.list_(pa.int64())),
        ("num_dropped", pa.list_(pa.int64())),
        ("num_unknown", pa.int64()),
        ("group", pa.string()),
        ("distance", pa.float64()),
        ("id", pa.string()),
        ("row", pa.int64()),
        ("unit", pa.string()),
        ("block", pa.int32()),
        ("digest", pa.uint64()),
        ("value", pa.float64()),
    ]
)


def to_rows(tally: Tally) -> Iterator[dict[str, Any]]:
    """Yield a tally as rows of `TALLIES`, in an order that its content alone decides."""
    for step, amounts in enumerate(tally.kept.tolist()):
        yield {"what": "kept", "step": step, "amounts": amounts}
    for step, names in enumerate(tally.reasons):
        for name, amounts in zip(names, tally.taken[step].tolist(), strict=True):
            yield {"what": "taken", "step": step, "name": name, "amounts": amounts}
    for (step, rule), histogram in sorted(tally.histograms.items()):
        is_words = bool(histogram.words)
        counts = sorted((histogram.words if is_words else histogram.bins).items())
        yield {
            "what": "histogram",
            "step": step,
            "rule": rule,
            "words" if is_words else "bins": [key for key, _ in counts],
            "num_kept": [kept for _, (kept, _) in counts],
            "num_dropped": [dropped for _, (_, dropped) in counts],
            "num_unknown": histogram.unknown,
        }
    for (step, name, group), picks in sorted(tally.picks.items()):
        for pick in picks:
            yield {"what": "sample", "step": step, "name": name, "group": group, **asdict(pick)}


def from_rows(passes: Sequence[GivesReasons], rows: Sequence[Mapping[str, Any]]) -> Tally:
    """Return the tally that rows of `TALLIES` hold."""
    tally = Tally(passes)
    picks: dict[Any, list[Pick]] = {}
    for row in rows:
        if row["what"] == "kept":
            tally.kept[row["step"]] = row["amounts"]
        elif row["what"] == "taken":
            place = tally.reasons[row["step"]].index(row["name"])
            tally.taken[row["step"]][place] = np.array(row["amounts"])
        elif row["what"] == "histogram":
            tally.histograms[row["step"], row["rule"]] = _histogram(row)
        else:
            key = (row["step"], row["name"], row["group"])
            picks.setdefault(key, []).append(Pick(**{name: row[name] for name in Pick.__slots__}))
    for key, found in picks.items():
        tally.add_picks(key, found)
    return tally


def _histogram(row: Mapping[str, Any]) -> Histogram:
    counts = [list(pair) for pair in zip(row["num_kept"], row["num_dropped"], strict=True)]
    return Histogram(
        bins=dict(zip(row["bins"] or (), counts, strict=False)) if row["words"] is None else {},
        words={} if row["words"] is None else dict(zip(row["words"], counts, strict=True)),
        unknown=row["num_unknown"],
    )
