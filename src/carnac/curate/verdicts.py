"""What a pass says of a document, how it is stored in `masks/<pass>/`, and the names of the reasons.

A document that is dropped keeps nothing, whatever its `keep_block` says: those entries stay as the rules on blocks left
them, so that each block's own reason can still be read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.schema import MASKS
from carnac.curate.settings import RepeatsPass, Rule, RulesPass

METADATA_KEY = b"carnac.reasons"
SIGNALS_FAILED = "signals_failed"
NO_BLOCKS_LEFT = "no_blocks_left"
IMAGE_MISSING = "image_missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is kept of one document: `reason` and `block_reason` are codes of `Reasons`, None where kept."""

    keep: bool
    reason: int | None
    keep_block: tuple[bool, ...]
    block_reason: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Reasons:
    """The names of all reasons of all passes so far; a code is an index. Later passes never change earlier codes."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, passes: Sequence[RulesPass | RepeatsPass]) -> Reasons:
        """Return the reasons that `passes` can give, each once, in the order of the recipe."""
        return cls(tuple(dict.fromkeys(name for pass_ in passes for name in reasons_of_pass(pass_))))

    @classmethod
    def from_table(cls, masks: pa.Table) -> Reasons:
        """Return the reasons stored with a part of masks."""
        stored = (masks.schema.metadata or {}).get(METADATA_KEY)
        if stored is None:
            raise InputError(f"a part of masks lacks the metadata {METADATA_KEY.decode()}: was it written by carnac?")
        return cls(tuple(json.loads(stored)))

    def code(self, name: str) -> int:
        """Return the code of `name`."""
        return self.names.index(name)

    def to_metadata(self) -> dict[bytes, bytes]:
        """Return the metadata of a part of masks."""
        return {METADATA_KEY: json.dumps(self.names).encode()}


def reasons_of_pass(pass_: RulesPass | RepeatsPass) -> tuple[str, ...]:
    """Return the names of the reasons that a pass can give, in the order in which it tries them."""
    if isinstance(pass_, RepeatsPass):
        return (SIGNALS_FAILED, *(repeat_reason(kind) for kind in pass_.by))
    blocks = [name for rule in pass_.rules if rule.on != "document" for name in rule_reasons(rule) if name]
    documents = [name for rule in pass_.rules if rule.on == "document" for name in rule_reasons(rule) if name]
    missing = [IMAGE_MISSING] if any(rule.on == "image" for rule in pass_.rules) else []
    return tuple(dict.fromkeys([SIGNALS_FAILED, *missing, *blocks, NO_BLOCKS_LEFT, *documents]))


def rule_reasons(rule: Rule) -> tuple[str | None, str | None]:
    """Return the names of the two ways to fail `rule`, below min and above max: `text.num_words < 3`."""
    subject = f"{rule.on}.{rule.signal}"
    where = f" ({', '.join(rule.kinds)})" if rule.kinds else ""
    below = None if rule.min is None else f"{subject} < {_number(rule.min)}{where}"
    above = None if rule.max is None else f"{subject} > {_number(rule.max)}{where}"
    return below, above


def repeat_reason(kind: str) -> str:
    """Return the name of the reason for a repeat: `repeat.url`."""
    return f"repeat.{kind}"


def keep_all(num_blocks: int) -> Verdict:
    """Return the verdict before the first pass."""
    return Verdict(keep=True, reason=None, keep_block=(True,) * num_blocks, block_reason=(None,) * num_blocks)


def verdict_from_row(row: Mapping[str, Any]) -> Verdict:
    """Return the verdict of a row of `MASKS`."""
    keep_block, block_reason = tuple(row["keep_block"]), tuple(row["block_reason"])
    return Verdict(keep=row["keep"], reason=row["reason"], keep_block=keep_block, block_reason=block_reason)


def masks_table(ids: Sequence[str], verdicts: Sequence[Verdict], reasons: Reasons) -> pa.Table:
    """Return a part of `MASKS` with the names of its reasons in its metadata."""
    rows = [
        {
            "id": id_,
            "keep": verdict.keep,
            "reason": verdict.reason,
            "keep_block": verdict.keep_block,
            "block_reason": verdict.block_reason,
        }
        for id_, verdict in zip(ids, verdicts, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=MASKS.with_metadata(reasons.to_metadata()))


def check_same_rows(first: pa.Table, *others: pa.Table) -> None:
    """Raise InputError unless all tables hold the same documents in the same order."""
    ids = first.column("id").to_pylist()
    for other in others:
        got = other.column("id").to_pylist()
        if got != ids:
            row = next((n for n, (a, b) in enumerate(zip(ids, got, strict=False)) if a != b), min(len(ids), len(got)))
            raise InputError(
                f"two parts of one unit hold different documents from row {row} on ({len(ids)} and {len(got)} rows): "
                "one of the folders was made from other documents; remove it and run its stage again"
            )


def _number(value: float) -> str:
    """Write a threshold as in the recipe: 3, 0.1, 20000."""
    return repr(int(value)) if value.is_integer() else repr(value)
