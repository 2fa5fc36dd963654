"""Judge documents by thresholds on their signals.

In: rows of `signals/` and the last verdicts. Out: the next verdicts. No text and no image is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from carnac.curate.catalogue import DOCUMENT_SIGNALS, IMAGE_SIGNALS, TEXT_SIGNALS
from carnac.curate.settings import Rule
from carnac.curate.verdicts import (
    IMAGE_MISSING,
    NO_BLOCKS_LEFT,
    SIGNALS_FAILED,
    Reasons,
    Verdict,
    check_same_rows,
    keep_all,
    masks_table,
    rule_reasons,
    verdict_from_row,
)


def judge(
    signals: Mapping[str, Any],
    kinds: Sequence[str],
    last: Verdict | None,
    rules: Sequence[Rule],
    reasons: Reasons,
) -> Verdict:
    """Return the verdict on one document after one pass of rules.

    `signals` is a row of `SIGNALS`, `kinds` the kinds of the document's blocks, `last` the verdict of the pass before.
    What is dropped stays dropped with its first reason, and nothing of a dropped document is judged again.
    """
    last = keep_all(len(kinds)) if last is None else last
    assert len(last.keep_block) == len(kinds), f"{signals['id']}: {len(last.keep_block)} verdicts, {len(kinds)} blocks"
    if not last.keep:
        return last
    if signals["failed"] is not None:
        return _dropped(last, reasons.code(SIGNALS_FAILED))
    verdict = _judge_blocks(signals, kinds, last, rules, reasons)
    if not any(verdict.keep_block):
        return _dropped(verdict, reasons.code(NO_BLOCKS_LEFT))
    failed = _judge_document(signals, verdict.keep_block, rules)
    return verdict if failed is None else _dropped(verdict, reasons.code(failed))


def judge_part(
    documents: pa.Table, signals: pa.Table, last: pa.Table | None, rules: Sequence[Rule], reasons: Reasons
) -> pa.Table:
    """Return the part of `MASKS` of one pass of rules.

    `documents` needs the columns `id` and `kinds`; `last` is the same part of the pass before, None for the first pass.
    Raises InputError where the three do not hold the same documents.
    """
    check_same_rows(documents, signals, *([] if last is None else [last]))
    kinds = documents.column("kinds").to_pylist()
    rows = signals.to_pylist()
    before = [None] * len(kinds) if last is None else [verdict_from_row(row) for row in last.to_pylist()]
    verdicts = [judge(*each, rules, reasons) for each in zip(rows, kinds, before, strict=True)]
    return masks_table(documents.column("id").to_pylist(), verdicts, reasons)


def _judge_blocks(
    signals: Mapping[str, Any], kinds: Sequence[str], last: Verdict, rules: Sequence[Rule], reasons: Reasons
) -> Verdict:
    """Judge the blocks that are still kept."""
    text_rules = [rule for rule in rules if rule.on == "text"]
    image_rules = [rule for rule in rules if rule.on == "image"]
    block_reason = list(last.block_reason)
    for place, kind in enumerate(kinds):
        if last.keep_block[place]:
            failed = (
                _judge_image(signals, place, image_rules)
                if kind == "image"
                else _judge_text(signals, place, kind, text_rules)
            )
            block_reason[place] = None if failed is None else reasons.code(failed)
    return Verdict(
        keep=True,
        reason=None,
        keep_block=tuple(code is None for code in block_reason),
        block_reason=tuple(block_reason),
    )


def _judge_text(signals: Mapping[str, Any], place: int, kind: str, rules: Sequence[Rule]) -> str | None:
    """Return the name of the first rule that a text block fails."""
    for rule in rules:
        if rule.kinds is None or kind in rule.kinds:
            value = TEXT_SIGNALS[rule.signal].value(signals, place)
            assert value is not None, f"{signals['id']}: block {place} is a text without {rule.signal}"
            if failed := _outside(value, rule):
                return failed
    return None


def _judge_image(signals: Mapping[str, Any], place: int, rules: Sequence[Rule]) -> str | None:
    """Return the name of the first rule that an image block fails; without a kept file it fails any."""
    if rules and not signals["block_has_image"][place]:
        return IMAGE_MISSING
    for rule in rules:
        value = IMAGE_SIGNALS[rule.signal].value(signals, place)
        if value is None:
            return IMAGE_MISSING
        if failed := _outside(value, rule):
            return failed
    return None


def _judge_document(signals: Mapping[str, Any], keep_block: Sequence[bool], rules: Sequence[Rule]) -> str | None:
    """Return the name of the first rule that the document fails, of what is still kept of it."""
    places = [place for place, keep in enumerate(keep_block) if keep]
    for rule in rules:
        if rule.on == "document" and (failed := _outside(DOCUMENT_SIGNALS[rule.signal].value(signals, places), rule)):
            return failed
    return None


def _outside(value: float, rule: Rule) -> str | None:
    """Return the name of the threshold that `value` misses."""
    if rule.min is not None and value < rule.min:
        return rule_reasons(rule)[0]
    if rule.max is not None and value > rule.max:
        return rule_reasons(rule)[1]
    return None


def _dropped(verdict: Verdict, reason: int) -> Verdict:
    """Return `verdict` with the document dropped."""
    return Verdict(keep=False, reason=reason, keep_block=verdict.keep_block, block_reason=verdict.block_reason)
