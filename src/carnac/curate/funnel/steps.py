"""The funnel: what each pass kept, what each reason took, and how the signals of its rules lie to their thresholds.

In: a tally of all parts, what the ledgers counted, and the excerpts of its samples. Out: a `FunnelStep` per pass. Of
each pass, what went in less what its reasons took is what came out, for documents, text blocks, words and images alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from carnac.curate.funnel.rules import axis_of, bounds_of
from carnac.curate.funnel.samples import Pick
from carnac.curate.funnel.tally import Group, Histogram, Tally
from carnac.curate.settings import Rule, RulesPass

INPUT = "(input)"  # no pass can be named so
MAX_EXCERPT_CHARACTERS = 200
# Counts of a part of masks, before the name of a reason (jobs/curate_judge.py).
OWN = "own."
MARGINAL = "marginal."


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A quantity of documents and what is in them. `images` are image blocks, `words` those of the text blocks."""

    documents: int
    text_blocks: int
    words: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """What a sample shows: the URL of its page, and the start of a text or the URL of an image."""

    url: str
    excerpt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A document, or a block of one, that a reason took or nearly took; `value` is that of the signal."""

    id: str
    url: str
    excerpt: str
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one reason took. The blocks of a dropped document count where they were kept until then.

    `own` is what the rule takes by itself, whatever others take, `marginal` what no other reason of the pass takes: in
    blocks or documents, as its level says. Both None where nobody counted: a search finds what it finds.
    """

    reason: str
    amount: Amount
    own: int | None
    marginal: int | None
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnBound:
    """One threshold of a rule, and what lies nearest to it on both sides."""

    side: str
    at: float
    reason: str
    just_kept: tuple[Sample, ...]
    just_dropped: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnRule:
    """A rule and the signal that it judges.

    `bins` are (bin, kept, dropped) on the axis `scale`, `step` (`funnel_axis`), of what came to the pass and is judged
    by this rule; `words` are (word, kept, dropped) where the signal is a word. `num_unknown` have no value.
    """

    on: str
    signal: str
    unit: str
    description: str
    applies_to: str
    reasons: tuple[str, ...]
    scale: str
    step: float
    bins: tuple[tuple[int, int, int], ...]
    words: tuple[tuple[str, int, int], ...]
    num_unknown: int
    bounds: tuple[DrawnBound, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelStep:
    """What is kept after a pass, and what its reasons took, in the order in which the pass tries them.

    The first step, named `(input)`, is what came in.
    """

    name: str
    kind: str
    kept: Amount
    taken: tuple[Taken, ...]
    rules: tuple[DrawnRule, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the step as plain dicts and lists."""
        return asdict(self)


Excerpts = Mapping[tuple[str, int, int | None], Excerpt]  # by (unit, row, block)


def steps_of(tally: Tally, counts: Sequence[Mapping[str, int]], excerpts: Excerpts) -> list[FunnelStep]:
    """Return what came in, then a step per pass. `counts` are those of the ledgers of each pass's masks.

    A sample without an excerpt is left out: its page was taken down.
    """
    steps = [FunnelStep(name=INPUT, kind="input", kept=_amount(tally.kept[0].tolist()), taken=(), rules=())]
    for number, step in enumerate(tally.passes):
        drawing = _Drawing(tally, number, excerpts)
        rules = step.rules if isinstance(step, RulesPass) else ()
        steps.append(
            FunnelStep(
                name=step.name,
                kind=str(getattr(step, "kind", "")),
                kept=_amount(tally.kept[number + 1].tolist()),
                taken=tuple(drawing.taken(counts[number])),
                rules=tuple(drawing.rule(place, rule) for place, rule in enumerate(rules)),
            )
        )
    return steps


def excerpt_of(content: str) -> str:
    """Return the start of a text, or of an image's URL, on one line."""
    return " ".join(content[: 4 * MAX_EXCERPT_CHARACTERS].split())[:MAX_EXCERPT_CHARACTERS]


@dataclass(frozen=True, slots=True)
class _Drawing:
    """One pass of a tally on its way to a step."""

    tally: Tally
    number: int
    excerpts: Excerpts

    def taken(self, counts: Mapping[str, int]) -> list[Taken]:
        names, amounts = self.tally.reasons[self.number], self.tally.taken[self.number].tolist()
        return [
            Taken(
                reason=name,
                amount=_amount(amount),
                own=counts.get(f"{OWN}{name}"),
                marginal=counts.get(f"{MARGINAL}{name}"),
                samples=self.samples(name, "taken"),
            )
            for name, amount in zip(names, amounts, strict=True)
        ]

    def rule(self, place: int, rule: Rule) -> DrawnRule:
        histogram = self.tally.histograms.get((self.number, place), Histogram())
        signal, axis = rule.known(), axis_of(rule)
        reasons = tuple(name for name in rule.reasons() if name is not None)
        return DrawnRule(
            on=rule.on,
            signal=rule.signal,
            unit=signal.unit,
            description=signal.description,
            applies_to=reasons[0].partition(" (")[2].removesuffix(")"),
            reasons=reasons,
            scale=axis.scale,
            step=axis.step,
            bins=tuple((place, kept, dropped) for place, (kept, dropped) in sorted(histogram.bins.items())),
            words=tuple((word, kept, dropped) for word, (kept, dropped) in sorted(histogram.words.items())),
            num_unknown=histogram.unknown,
            bounds=tuple(
                DrawnBound(
                    side=bound.side,
                    at=bound.at,
                    reason=bound.reason,
                    just_kept=self.samples(bound.reason, "just_kept"),
                    just_dropped=self.samples(bound.reason, "just_dropped"),
                )
                for bound in bounds_of(rule)
            ),
        )

    def samples(self, reason: str, group: Group) -> tuple[Sample, ...]:
        picks = self.tally.picks.get((self.number, reason, group), [])
        shown = ((pick, self.excerpts.get(place_of(pick))) for pick in picks)
        return tuple(
            Sample(id=pick.id, url=each.url, excerpt=each.excerpt, value=pick.value)
            for pick, each in shown
            if each is not None
        )


def place_of(pick: Pick) -> tuple[str, int, int | None]:
    """Return where a sample lies: unit, row, block."""
    return pick.unit, pick.row, pick.block


def _amount(counts: Sequence[int]) -> Amount:
    documents, text_blocks, words, images = counts
    return Amount(documents=documents, text_blocks=text_blocks, words=words, images=images)
