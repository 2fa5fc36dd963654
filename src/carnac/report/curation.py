"""The funnel for readers: what each pass kept, what each reason took; flow in: the steps of funnel.json.

A funnel that an earlier version wrote has no kills and no rules; what is missing is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from carnac.report.curation_drawing import write_number
from carnac.report.layout import flat, rendered
from carnac.report.story import Story

AMOUNTS = ("documents", "text_blocks", "words", "images")
MAX_EXCERPT = 90  # characters of a sample in a terminal
Steps = Sequence[Mapping[str, Any]]


def is_curation(story: Story) -> bool:
    """Say whether a folder is that of a curate recipe alone: then the funnel is what there is to show."""
    return bool(story.funnel) and not any(story.find(stage) for stage in ("documents", "shards"))


def funnel_table(steps: Steps) -> str:
    """Return the funnel as a table for a terminal, "" without steps.

    Each pass is followed by the reasons that took something; `own` is what a rule takes by itself and `alone` what
    no other rule of the pass takes, in blocks or documents as its level says.
    """
    if not steps:
        return ""
    has_kills = any(taken.get("own") is not None for step in steps for taken in step["taken"])
    table = Table("funnel", box=None, pad_edge=False)
    for name in ("documents", "text blocks", "words", "images", *(("own", "alone") if has_kills else ())):
        table.add_column(name, justify="right")
    for step in steps:
        table.add_row(f"after {step['name']}" if step["taken"] else step["name"], *amount_words(step["kept"]))
        for taken in step["taken"]:
            if any(taken["amount"].values()) or taken.get("own"):
                kills = [_number(taken.get("own")), _number(taken.get("marginal"))] if has_kills else []
                table.add_row(f"  - {taken['reason']}", *amount_words(taken["amount"], sign="-"), *kills, style="dim")
    return rendered(table)


def samples_text(steps: Steps, count: int) -> str:
    """Return samples of what each reason took, and of what lies at its threshold."""
    return "\n".join(line for step in steps for line in _samples(step, count))


def _samples(step: Mapping[str, Any], count: int) -> Iterator[str]:
    bounds = {bound["reason"]: bound for rule in step.get("rules", ()) for bound in rule["bounds"]}
    for taken in step["taken"]:
        if not taken["samples"]:
            continue
        yield f"{step['name']}: {taken['reason']} took, such as"
        yield from (_sample(sample) for sample in taken["samples"][:count])
        bound = bounds.get(taken["reason"])
        for group, what in (("just_dropped", "nearly kept"), ("just_kept", "nearly taken")):
            if bound is not None and bound[group]:
                yield f"  {what}:"
                yield from (_sample(sample) for sample in bound[group][:count])


def _sample(sample: Mapping[str, Any]) -> str:
    value = sample.get("value")
    said = "" if value is None else f"{write_number(value)}  "
    return f"    {sample['id'][:8]}  {said}{flat(sample['excerpt'] or sample['url'], MAX_EXCERPT)}"


def amount_words(amount: Mapping[str, int], sign: str = "") -> list[str]:
    """Return the amounts as cells of a table, empty where there is nothing."""
    return [f"{sign}{amount[name]:,}" if amount[name] else "" for name in AMOUNTS]


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
