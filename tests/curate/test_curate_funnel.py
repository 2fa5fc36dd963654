from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from curate_pages import PASSES, Block, image_file, image_signals_table, page, sample_pages, signals_table

from carnac.core.document import Document
from carnac.curate.funnel.steps import Amount, Excerpt, FunnelStep, excerpt_of, place_of, steps_of
from carnac.curate.funnel.table import TALLIES, from_rows, to_rows
from carnac.curate.funnel.tally import After, Rows, Tally
from carnac.curate.hits import WHOLE, Hits, judge_hits
from carnac.curate.masks import Masks, Reasons
from carnac.curate.rules import judge_rules
from carnac.curate.settings import RulesPass
from carnac.curate.signals.frame import Frame

MIN_IMAGES = 3  # half of the real pages have as many
RECIPE = PASSES.validate_python(
    [
        {
            "name": "blocks",
            "kind": "rules",
            "rules": ({"on": "text", "signal": "num_words", "min": 3}, {"on": "image", "signal": "width", "min": 64}),
        },
        {
            "name": "pages",
            "kind": "rules",
            "rules": (
                {"on": "document", "signal": "num_images", "min": MIN_IMAGES},
                {"on": "document", "signal": "num_words", "min": 4, "max": 100_000},
                {"on": "document", "signal": "special_character_ratio", "max": 0.4},
            ),
        },
        {"name": "repeats", "kind": "repeats", "by": ("url", "text")},
    ]
)
FILES = {"http://a.example/i.png": image_file(100, 100)}
PICTURE: Block = ("image", "http://a.example/i.png")
GOOD = page("The stones stand in lines.", "Next", PICTURE, PICTURE, PICTURE)


@dataclass(frozen=True, slots=True)
class Judged:
    """Documents with the tables and masks that a run would have of them."""

    documents: Sequence[Document]
    signals: pa.Table
    images: pa.Table
    masks: Sequence[Masks]
    counts: Sequence[Mapping[str, int]]


def judged(
    documents: Sequence[Document], files: Any, repeats: Mapping[int, str] | None = None, failed: int = -1
) -> Judged:
    signals, images = signals_table(documents), image_signals_table(documents, files)
    is_failed = np.arange(len(documents)) == failed
    reasons_failed = pa.array(["too_deep" if each else None for each in is_failed], pa.string())
    signals = signals.set_column(signals.column_names.index("failed"), "failed", reasons_failed)
    frame = Frame.of(signals, images)
    last, masks, counts = Masks.keeping_all(signals.column("id"), frame.starts), [], []
    for number, step in enumerate(RECIPE, start=1):
        reasons = Reasons.of(RECIPE[:number])
        kills: Counter[str] = Counter()
        if isinstance(step, RulesPass):
            found = judge_rules(frame, last, is_failed, step.rules, reasons)
            last = found.masks
            for name, each in found.kills.items():
                kills.update({f"own.{name}": each.own, f"marginal.{name}": each.marginal})
        else:
            rows = sorted(repeats or {})
            hits = Hits(
                row=np.array(rows, np.int64),
                block=np.full(len(rows), WHOLE),
                reason=[(repeats or {})[row] for row in rows],
            )
            last = judge_hits(last, is_failed, hits, reasons)
        masks.append(last)
        counts.append(kills)
    return Judged(documents, signals, images, masks, counts)


def tally_of(part: Judged, unit: str = "a", batch: int = 1000) -> Tally:
    """Return the tally of a part, read so many rows at once."""
    tally = Tally(RECIPE)
    for first in range(0, len(part.documents), batch):
        signals, images = part.signals.slice(first, batch), part.images.slice(first, batch)
        frame = Frame.of(signals, images)
        afters = []
        for number, step in enumerate(RECIPE):
            table = part.masks[number].to_table(Reasons.of(RECIPE[: number + 1])).slice(first, batch)
            masks = Masks.from_table(table)
            afters.append(After(masks=masks, frame=frame if isinstance(step, RulesPass) else None))
        tally.add(Rows.of_signals(unit, first, signals), afters)
    return tally


def excerpts_of(tally: Tally, parts: Mapping[str, Judged]) -> dict[tuple[str, int, int | None], Excerpt]:
    found = {}
    for picks in tally.picks.values():
        for pick in picks:
            document = parts[pick.unit].documents[pick.row]
            assert document.id == pick.id
            content = "" if pick.block is None else document.texts[pick.block] or document.images[pick.block] or ""
            found[place_of(pick)] = Excerpt(url=document.url, excerpt=excerpt_of(content))
    return found


def drawn(*parts: Judged, batch: int = 1000) -> list[FunnelStep]:
    named = {f"unit-{number}": part for number, part in enumerate(parts)}
    tally = Tally(RECIPE)
    for unit, part in named.items():
        tally.merge(from_rows(RECIPE, stored(tally_of(part, unit, batch))))
    counts = [Counter[str]() for _ in RECIPE]
    for part in parts:
        for total, each in zip(counts, part.counts, strict=True):
            total.update(each)
    return steps_of(tally, counts, excerpts_of(tally, named))


def stored(tally: Tally) -> list[dict[str, Any]]:
    """Return the rows of a tally as they come back from a table."""
    rows: list[dict[str, Any]] = pa.Table.from_pylist(list(to_rows(tally)), schema=TALLIES).to_pylist()
    return rows


def hand_made() -> Judged:
    documents = [GOOD, page("Words enough, but no picture."), page("Home"), page("never measured"), GOOD]
    return judged(documents, FILES, {4: "repeat.url"}, failed=3)


def amount(documents: int, text_blocks: int, words: int, images: int) -> Amount:
    return Amount(documents=documents, text_blocks=text_blocks, words=words, images=images)


def real_parts() -> list[Judged]:
    documents, files = sample_pages()
    return [judged(documents[start : start + 7], files) for start in range(0, len(documents), 7)]


def test_each_pass_tells_what_is_left_and_each_reason_what_it_took() -> None:
    came, blocks, pages, repeats = drawn(hand_made())
    assert (came.name, came.kept, came.taken) == ("(input)", amount(5, 7, 20, 6), ())
    assert (blocks.name, blocks.kept) == ("blocks", amount(3, 3, 15, 6))
    assert {taken.reason: taken.amount for taken in blocks.taken} == {
        "signals_failed": amount(1, 1, 2, 0),
        "image_missing": amount(0, 0, 0, 0),
        "text.num_words < 3": amount(0, 3, 3, 0),
        "image.width < 64": amount(0, 0, 0, 0),
        "no_blocks_left": amount(1, 0, 0, 0),
    }
    assert pages.kept == amount(2, 2, 10, 6)
    assert {taken.reason: taken.amount for taken in pages.taken}["document.num_images < 3"] == amount(1, 1, 5, 0)
    assert repeats.kept == amount(1, 1, 5, 3)
    assert [(taken.reason, taken.amount, taken.own) for taken in repeats.taken] == [
        ("signals_failed", amount(0, 0, 0, 0), None),
        ("repeat.url", amount(1, 1, 5, 3), None),
        ("repeat.text", amount(0, 0, 0, 0), None),
        ("no_blocks_left", amount(0, 0, 0, 0), None),
    ]


def test_the_grave_shows_what_was_taken() -> None:
    _, blocks, pages, _ = drawn(hand_made())
    graves = {taken.reason: [sample.excerpt for sample in taken.samples] for taken in (*pages.taken, *blocks.taken)}
    assert set(graves["text.num_words < 3"]) == {"Next", "Home"}
    assert graves["no_blocks_left"] == ["Home"]
    assert graves["signals_failed"] == ["never measured"]
    assert graves["document.num_images < 3"] == ["Words enough, but no picture."]
    assert graves["image_missing"] == []


def test_the_grave_holds_one_sample_of_each_text_of_the_smallest_ids() -> None:
    documents = [page("Next", f"Page number {n} has enough words.", url=f"http://a.example/{n}") for n in range(30)]
    _, blocks, pages, _ = drawn(judged(documents, {}))
    first = sorted(documents, key=lambda document: document.id)
    nexts = blocks.taken[2].samples
    (few,) = [taken.samples for taken in pages.taken if taken.samples]
    assert [(sample.id, sample.excerpt) for sample in nexts] == [(first[0].id, "Next")]
    assert [(sample.url, sample.excerpt) for sample in few] == [(each.url, each.texts[1]) for each in first[:5]]


def total(amounts: list[Amount]) -> list[int]:
    columns = [(each.documents, each.text_blocks, each.words, each.images) for each in amounts]
    return [sum(column) for column in zip(*columns, strict=True)]


def test_on_real_pages_what_went_in_is_what_was_taken_and_what_came_out() -> None:
    steps = drawn(*real_parts())
    assert steps[0].kept.documents == 60
    assert 0 < steps[-1].kept.documents < 60
    for before, after in pairwise(steps):
        assert total([before.kept]) == total([after.kept, *(taken.amount for taken in after.taken)])
        for taken in after.taken:
            hit = taken.amount.documents + taken.amount.text_blocks + taken.amount.images > 0
            assert bool(taken.samples) == hit, taken.reason
            assert len(taken.samples) <= 5


def test_a_histogram_counts_what_the_rule_judged_and_drops_what_the_ledger_says() -> None:
    steps = drawn(*real_parts())
    assert [len(step.rules) for step in steps] == [0, 2, 3, 0]
    for step in steps:
        own = {taken.reason: taken.own for taken in step.taken}
        for rule in step.rules:
            dropped = sum(number for _, _, number in rule.bins)
            assert dropped == sum(own[reason] or 0 for reason in rule.reasons), rule.reasons
            assert sum(kept for _, kept, _ in rule.bins) > 0
            assert rule.num_unknown == 0
    documents = {sum(kept + dropped for _, kept, dropped in rule.bins) for rule in steps[2].rules}
    assert documents == {steps[1].kept.documents}


def test_what_lies_nearest_to_a_threshold_is_shown_on_both_sides() -> None:
    parts = real_parts()
    words, ratio = (drawn(*parts)[2].rules[place] for place in (1, 2))
    (bound,) = ratio.bounds
    kept, dropped = ([sample.value or 0 for sample in side] for side in (bound.just_kept, bound.just_dropped))
    assert kept == sorted(kept, reverse=True)
    assert dropped == sorted(dropped)
    assert max(kept) <= bound.at < min(dropped)
    values = []
    for part in parts:
        frame = Frame.of(part.signals, part.images).with_kept(part.masks[1].keep_block)
        alive = part.masks[0].keep
        values += ratio_of(frame)[alive].tolist()
    assert kept == sorted((value for value in set(values) if value <= bound.at), reverse=True)[: len(kept)]
    assert [bound.side for bound in words.bounds] == ["min", "max"]
    assert words.bounds[1].just_dropped == ()


def ratio_of(frame: Frame) -> Any:
    from carnac.curate.signals.catalogue import signals_on

    return signals_on("document")["special_character_ratio"].value(frame)


def test_the_order_of_units_their_size_and_how_many_rows_are_read_at_once_change_nothing() -> None:
    parts = real_parts()
    whole = Tally(RECIPE)
    documents, files = sample_pages()
    for number, part in enumerate(parts):
        whole.merge(tally_of(part, f"u{number}"))
    expected = stored(whole)
    for batch in (1, 3):
        shuffled = list(enumerate(parts))
        random.Random(batch).shuffle(shuffled)
        other = Tally(RECIPE)
        for number, part in shuffled:
            other.merge(tally_of(part, f"u{number}", batch))
        assert stored(other) == expected
    one = tally_of(judged(documents, files), "whole")
    assert np.array_equal(one.kept, whole.kept)
    assert {key: histogram.bins for key, histogram in one.histograms.items()} == {
        key: histogram.bins for key, histogram in whole.histograms.items()
    }
    for key, picks in whole.picks.items():
        assert [(pick.id, pick.block) for pick in one.picks[key]] == [(pick.id, pick.block) for pick in picks], key


def test_a_tally_comes_back_from_its_table() -> None:
    tally = tally_of(real_parts()[0])
    assert stored(from_rows(RECIPE, stored(tally))) == stored(tally)


def test_steps_are_written_as_json() -> None:
    written = json.loads(json.dumps([step.to_json() for step in drawn(hand_made())]))
    assert written[1]["kept"] == {"documents": 3, "text_blocks": 3, "words": 15, "images": 6}
    assert written[3]["taken"][1]["reason"] == "repeat.url"
    assert written[3]["taken"][1]["samples"][0]["url"] == "http://stones.example/"
    assert written[2]["rules"][1]["bounds"][0] == {
        "side": "min",
        "at": 4.0,
        "reason": "document.num_words < 4",
        "just_kept": written[2]["rules"][1]["bounds"][0]["just_kept"],
        "just_dropped": [],
    }


def test_a_sample_whose_page_was_taken_down_is_left_out() -> None:
    part = hand_made()
    tally = tally_of(part)
    steps = steps_of(tally, part.counts, {})
    assert all(taken.samples == () for step in steps for taken in step.taken)
    assert steps[1].kept == drawn(part)[1].kept


def test_an_empty_unit_counts_nothing() -> None:
    assert drawn(judged([], {}), hand_made())[1].kept == drawn(hand_made())[1].kept
    assert drawn()[0].kept == amount(0, 0, 0, 0)


@pytest.mark.parametrize("values", [("en", "fr", None, "en"), (None, None, None, None)])
def test_words_are_counted_by_what_a_rule_says_of_them(values: tuple[str | None, ...]) -> None:
    from carnac.curate.signals.catalogue import signals_on

    labels = [name for name, signal in signals_on("document").items() if signal.is_label]
    assert "language" in labels
    step = PASSES.validate_python(
        [{"name": "a", "kind": "rules", "rules": ({"on": "document", "signal": "language", "one_of": ("en",)},)}]
    )
    documents = [page(f"Page {n} of this.", language=value) for n, value in enumerate(values)]
    signals, reasons = signals_table(documents), Reasons.of(step)
    frame = Frame.of(signals)
    failed = np.zeros(len(values), np.bool_)
    rules = step[0].rules if isinstance(step[0], RulesPass) else ()
    masks = judge_rules(frame, Masks.keeping_all(signals.column("id"), frame.starts), failed, rules, reasons).masks
    tally = Tally(step)
    tally.add(Rows.of_signals("a", 0, signals), [After(masks=masks, frame=frame)])
    tally = from_rows(step, stored(tally))
    (rule,) = steps_of(tally, [{}], {})[1].rules
    known = Counter(value for value in values if value is not None)
    assert rule.words == tuple(
        (word, n if word == "en" else 0, 0 if word == "en" else n) for word, n in sorted(known.items())
    )
    assert rule.num_unknown == values.count(None)
