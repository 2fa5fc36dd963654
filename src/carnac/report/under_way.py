"""What runs do, or did when they stopped: in which folder, since when, how far, at which units; what failed and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from carnac.engine.local import Running
from carnac.report.folders import MAX_FOOTERS, StageFolder
from carnac.report.layout import clock, flat

GO_ON = "The same command goes on from there."


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """One folder that is not simply done: `what` is happening there, and a line for each unit concerned."""

    title: str
    what: str
    units: tuple[str, ...]

    def lines(self, most: int) -> Iterator[str]:
        """Yield the lines for a reader, those of at most `most` units."""
        yield f"{self.title}: {self.what}"
        yield from (f"  {unit}" for unit in self.units[:most])
        if len(self.units) > most:
            yield f"  ... and {len(self.units) - most:,} more"


def under_way(folder: StageFolder) -> UnderWay | None:
    """Return what is under way in a folder; None for one that is done."""
    if folder.status == "done":
        return None
    sentences = [_what(folder)]
    if folder.is_finished:
        sentences.append("The figures shown are those of the run that finished here before.")
    elif folder.num_parts > len(folder.content.parts):
        sentences.append(f"The figures shown are those of the first {MAX_FOOTERS} of its {folder.num_parts:,} parts.")
    failed = [f"failed: unit {unit.unit}: {flat(unit.why, 400)}" for unit in folder.failed]
    return UnderWay(
        title=folder.title,
        what=" ".join(sentences),
        units=(*failed, *(_unit(unit, folder.status == "running") for unit in folder.running)),
    )


def _what(folder: StageFolder) -> str:
    state = folder.state
    if state is None:
        parts = f"{folder.num_parts:,} part{'s are' if folder.num_parts != 1 else ' is'} committed"
        return f"not finished: no manifest and no run at work; {parts}. Run the recipe that writes it again."
    failed = f", {len(folder.failed):,} failed" if folder.failed else ""
    units = f"{folder.num_done:,} of {state.num_units:,} units done{failed}"
    process = f"process {state.process} on {state.host}"
    is_step = bool(folder.steps) and state.stage != folder.stage
    if folder.status == "running":
        step = f" the step {state.stage}" if is_step else ""
        return f"running{step}: {process} since {clock(state.started)}, {units}."
    word = f"began {clock(state.started)}, its last word was at {clock(state.updated)}"
    why = (
        f" It stopped because: {flat(state.why_stopped, 600)}"
        if state.why_stopped and not folder.failed
        else f" {GO_ON}"
    )
    step = f" at the step {state.stage}" if is_step else ""
    return f"{folder.status}{step}: {process}, {word}; {units}.{why}"


def _unit(unit: Running, is_alive: bool) -> str:
    tries = f", try {unit.num_tries}" if unit.num_tries > 1 else ""
    record = f", at record {flat(unit.record)}" if unit.record else ""
    return f"{'running' if is_alive else 'was under way'}: unit {unit.unit} since {clock(unit.since)}{tries}{record}"
