"""Rules on arrays of many documents judge as one would by hand, block after block and document after document."""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from curate_pages import PASSES, frame_of, image_file, image_signals_table, page, sample_pages, signals_table
from hypothesis import given, settings
from hypothesis import strategies as st

from carnac.core.document import KINDS, Document, Kind
from carnac.curate.masks import IMAGE_MISSING, NO_BLOCKS_LEFT, SIGNALS_FAILED, Masks, Reasons
from carnac.curate.rules import Judged, columns_read, judge_documents, judge_rules, signals_named, values_of
from carnac.curate.settings import Rule, RulesPass, TextKind, Threshold
from carnac.curate.signals.catalogue import signals_on
from carnac.curate.signals.frame import Frame
from carnac.curate.signals.signal import Level

FILES = {
    "http://a.example/wide.png": image_file(400, 100),
    "http://a.example/good.jpg": image_file(400, 300, "image/jpeg"),
}
PAGE = page(
    ("heading", "Carnac"),
    "The stones stand in long lines on the heath.",
    "Read more",
    ("image", "http://a.example/wide.png"),
    ("image", "http://a.example/good.jpg"),
    ("image", "http://a.example/gone.png"),
)
Named = list[str | None]


def rule(on: Level, signal: str, low: float | None = None, high: float | None = None, *kinds: TextKind) -> Rule:
    return Rule(on=on, signal=signal, min=low, max=high, kinds=kinds or None)


def judged(
    frame: Frame, rules: Sequence[Rule], ids: Sequence[str], failed: Sequence[bool] = ()
) -> tuple[Judged, Reasons]:
    reasons = Reasons.of([RulesPass(name="a", kind="rules", rules=tuple(rules))])
    start = Masks.keeping_all(ids_of(ids), frame.starts)
    lost = np.array(failed or [False] * len(ids), np.bool_)
    return judge_rules(frame, start, lost, rules, reasons), reasons


def ids_of(ids: Sequence[str]) -> pa.ChunkedArray:
    return pa.chunked_array([list(ids)], pa.string())


def judge_page(document: Document, *rules: Rule) -> tuple[str | None, Named]:
    """Judge by one pass; return the reason of the document and of each block, None where kept."""
    found, reasons = judged(frame_of(document, files=FILES), rules, [document.id])
    blocks, (whole,) = named(found.masks.block_reason, reasons), named(found.masks.reason, reasons)
    return whole, blocks


def named(codes: Any, reasons: Reasons) -> Named:
    return [None if code < 0 else reasons.names[code] for code in codes.tolist()]


def test_text_rules_judge_blocks_of_their_kinds() -> None:
    assert judge_page(PAGE, rule("text", "num_words", 3, None, "paragraph")) == (
        None,
        [None, None, "text.num_words < 3 (paragraph)", None, None, None],
    )
    _, blocks = judge_page(PAGE, rule("text", "num_words", 3))
    assert blocks[0] == blocks[2] == "text.num_words < 3"


def test_image_rules_drop_what_has_no_file_by_name() -> None:
    _, blocks = judge_page(PAGE, rule("image", "width", 64), rule("image", "aspect", None, 3))
    assert blocks[3:] == ["image.aspect > 3", None, "image_missing"]


def test_without_rules_on_files_a_missing_image_stays() -> None:
    assert judge_page(PAGE, rule("text", "num_words", 1))[1][5] is None
    assert judge_page(PAGE, rule("image", "banned_url_words", None, 0))[1][5] is None


def test_words_are_judged_by_those_that_are_allowed() -> None:
    only_jpeg = Rule(on="image", signal="media_type", one_of=("image/jpeg", "image/webp"))
    _, blocks = judge_page(PAGE, only_jpeg)
    assert blocks[3:] == ["image.media_type not in image/jpeg, image/webp", None, "image_missing"]


def test_document_rules_see_what_the_block_rules_of_the_pass_left() -> None:
    images = rule("document", "num_images", None, 2)
    assert judge_page(PAGE, images)[0] == "document.num_images > 2"
    assert judge_page(PAGE, images, rule("image", "width", 1))[0] is None
    words = rule("document", "num_words", 11)  # 1 + 9 + 2 on the page, 9 after the block rule
    assert judge_page(PAGE, words)[0] is None
    assert judge_page(PAGE, words, rule("text", "num_words", 3))[0] == "document.num_words < 11"


@pytest.mark.parametrize("threshold", [0.1, 0.3, 4 / 9])
def test_min_and_max_are_kept_above_and_below_are_not(threshold: float) -> None:
    document = page("The stones stand in long lines on the heath.")  # 4 stop words of 9: the, in, on, the
    at = 4 / 9

    def keeps(**sides: float) -> bool:
        table = {"on": "text", "signal": "stop_word_ratio", **sides}
        return judge_page(document, Rule.model_validate(table))[0] is None

    assert keeps(min=at)
    assert keeps(max=at)
    assert not keeps(above=at)
    assert not keeps(below=at)
    assert not keeps(min=at + 1e-9)
    assert keeps(above=at - 1e-9)
    assert keeps(max=threshold) == (threshold == at)


def test_a_rule_with_a_condition_judges_only_where_it_holds() -> None:
    long = Rule(on="text", signal="punctuation_ratio", min=0.5, when=Threshold(signal="num_words", min=9))
    _, blocks = judge_page(PAGE, long)
    assert blocks[:3] == [None, "text.punctuation_ratio < 0.5 (num_words >= 9)", None]
    above = long.model_copy(update={"when": Threshold(signal="num_words", above=9)})
    assert judge_page(PAGE, above)[1] == [None] * 6


def test_what_is_not_known_is_kept_and_fulfils_no_condition() -> None:
    assert judge_page(PAGE, rule("image", "declared_width", 150))[1] == [None] * 6
    when = Threshold(signal="declared_width", max=1000)
    assert judge_page(PAGE, Rule(on="image", signal="alt_words", min=3, when=when))[1] == [None] * 6
    assert judge_page(PAGE, rule("document", "perplexity", None, 1))[0] is None


def test_a_document_whose_blocks_all_go_goes() -> None:
    small = "text.num_words < 2"
    assert judge_page(page("Next", "Home"), rule("text", "num_words", 2)) == (NO_BLOCKS_LEFT, [small, small])
    assert judge_page(page(), rule("document", "num_words", 0)) == (NO_BLOCKS_LEFT, [])


def test_a_document_that_could_not_be_measured_goes_and_is_not_judged() -> None:
    rules = (rule("text", "num_words", 3), rule("document", "num_words", 100))
    found, reasons = judged(frame_of(PAGE, page("other")), rules, ["a", "b"], [True, False])
    assert named(found.masks.reason, reasons) == [SIGNALS_FAILED, NO_BLOCKS_LEFT]
    assert named(found.masks.block_reason, reasons)[:6] == [None] * 6


@cache
def sample() -> tuple[tuple[Document, ...], Frame, tuple[Frame, ...]]:
    """Return six short real pages, their frame together, and that of each alone."""
    documents, files = sample_pages()
    chosen = tuple(sorted(documents, key=lambda document: len(document.kinds))[:6])
    frames = tuple(frame_of(document, files=files) for document in chosen)
    return chosen, frame_of(*chosen, files=files), frames


def threshold(name: str, side: str, value: float) -> Threshold:
    return Threshold.model_validate({"signal": name, side: value})


def thresholds(level: Level) -> st.SearchStrategy[Threshold]:
    numbers = sorted(name for name, signal in signals_on(level).items() if not signal.is_label)
    sides = st.sampled_from(["min", "max", "above", "below"])
    values = st.sampled_from([0.0, 0.02, 0.3, 1.0, 3.0, 30.0, 300.0])
    return st.builds(threshold, st.sampled_from(numbers), sides, values)


def rules_on(level: Level) -> st.SearchStrategy[Rule]:
    kinds = st.none() | st.sampled_from([("paragraph",), ("list", "code")])
    return st.builds(
        lambda threshold, when, some: Rule(
            **threshold.model_dump(), on=level, when=when, kinds=some if level == "text" else None
        ),
        thresholds(level),
        st.none() | thresholds(level),
        kinds,
    )


LEVELS: tuple[Level, ...] = ("text", "image", "document")
RULES = st.one_of(*(rules_on(level) for level in LEVELS))


class ByHand:
    """The values of the signals of one document, looked up block by block."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.has_file = frame.flags("block_has_image").tolist()
        self._values: dict[tuple[Level, str], list[float]] = {}

    def value(self, on: Level, name: str, place: int) -> float:
        if (on, name) not in self._values:
            self._values[on, name] = signals_on(on)[name].value(self.frame).tolist()
        return self._values[on, name][place]

    def sides(self, threshold: Threshold, on: Level, place: int) -> list[bool | None]:
        """Return whether the value is inside, for each side that a threshold has; None where it is not known."""
        value = self.value(on, threshold.signal, place)
        tests = {"min": operator.ge, "above": operator.gt, "max": operator.le, "below": operator.lt}
        limits = {name: getattr(threshold, name) for name in tests}
        inside = [tests[name](value, limit) for name, limit in limits.items() if limit is not None]
        return [None if math.isnan(value) else each for each in inside]

    def failing(self, rule: Rule, place: int, kind: Kind | None) -> list[str]:
        """Return the reasons for which a rule drops one block or the document."""
        level = "document" if kind is None else "image" if kind == "image" else "text"
        if rule.on != level or (rule.kinds is not None and kind not in rule.kinds):
            return []
        if rule.when is not None and not all(self.sides(rule.when, rule.on, place)):
            return []
        if rule.on == "image" and signals_on("image")[rule.signal].needs_file and not self.has_file[place]:
            return [IMAGE_MISSING]
        names = [name for name in rule.reasons() if name is not None]
        return [name for name, ok in zip(names, self.sides(rule, rule.on, place), strict=True) if ok is False]


def by_hand(document: Document, frame: Frame, rules: Sequence[Rule]) -> tuple[str | None, Named, Counter[str]]:
    """Return the reason of a document, of its blocks, and how many each reason takes by itself."""
    own: Counter[str] = Counter()
    blocks: Named = []
    hand = ByHand(frame)
    for place, kind in enumerate(document.kinds):
        why = [name for rule in rules for name in hand.failing(rule, place, kind)]
        own.update(set(why))
        blocks.append(why[0] if why else None)
    if all(reason is not None for reason in blocks):
        return NO_BLOCKS_LEFT, blocks, own
    left = ByHand(frame.with_kept(np.array([reason is None for reason in blocks], np.bool_)))
    why = [name for rule in rules for name in left.failing(rule, 0, None)]
    own.update(set(why))
    return (why[0] if why else None), blocks, own


@settings(max_examples=40, deadline=None)
@given(st.lists(RULES, min_size=1, max_size=5))
def test_many_documents_are_judged_as_by_hand(rules: list[Rule]) -> None:
    documents, frame, frames = sample()
    found, reasons = judged(frame, rules, [document.id for document in documents])
    wanted = [by_hand(document, one, rules) for document, one in zip(documents, frames, strict=True)]
    assert named(found.masks.reason, reasons) == [whole for whole, *_ in wanted]
    assert named(found.masks.block_reason, reasons) == [name for _, blocks, _ in wanted for name in blocks]
    own = sum((counts for *_, counts in wanted), Counter[str]())
    assert {name: kills.own for name, kills in found.kills.items() if kills.own} == dict(own)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(RULES, min_size=1, max_size=3), min_size=1, max_size=4))
def test_nothing_comes_back_and_reasons_never_change(recipe: list[list[Rule]]) -> None:
    passes = [RulesPass(name=f"p{number}", kind="rules", rules=tuple(rules)) for number, rules in enumerate(recipe)]
    documents, frame, _ = sample()
    last = Masks.keeping_all(ids_of([document.id for document in documents]), frame.starts)
    nobody = np.zeros(len(documents), np.bool_)
    for count, step in enumerate(passes, start=1):
        masks = judge_rules(
            frame.with_kept(last.keep_block), last, nobody, step.rules, Reasons.of(passes[:count])
        ).masks
        assert (masks.keep <= last.keep).all()
        assert (masks.keep_block <= last.keep_block).all()
        assert (masks.reason[~last.keep] == last.reason[~last.keep]).all()
        assert (masks.block_reason[~last.keep_block] == last.block_reason[~last.keep_block]).all()
        dead = ~np.repeat(last.keep, np.diff(last.starts))
        assert (masks.block_reason[dead] == last.block_reason[dead]).all()
        last = masks


def test_what_one_reason_takes_alone_is_told_from_what_others_would_take_too() -> None:
    rules = (rule("text", "num_words", 3), rule("text", "num_characters", 9), rule("document", "num_words", 8))
    found, _ = judged(frame_of(PAGE, page("Read it")), rules, ["a", "b"])
    # "Carnac" and "Read it" fail both, "Read more" (9 characters) fails the first alone.
    assert (found.kills["text.num_words < 3"].own, found.kills["text.num_words < 3"].marginal) == (3, 1)
    assert (found.kills["text.num_characters < 9"].own, found.kills["text.num_characters < 9"].marginal) == (2, 0)
    assert found.kills["document.num_words < 8"].own == 0  # what has no blocks left is not judged


@settings(max_examples=30, deadline=None)
@given(st.lists(rules_on("document"), min_size=1, max_size=5))
def test_documents_are_judged_alike_from_stored_values(rules: list[Rule]) -> None:
    documents, frame, _ = sample()
    start = Masks.keeping_all(ids_of([document.id for document in documents]), frame.starts)
    reasons = Reasons.of([RulesPass(name="a", kind="rules", rules=tuple(rules))])
    nobody = np.zeros(len(documents), np.bool_)
    whole = judge_rules(frame, start, nobody, rules, reasons)
    stored = judge_documents(values_of(frame, rules), start, nobody, rules, reasons)
    assert stored.masks.reason.tolist() == whole.masks.reason.tolist()
    assert stored.kills == {name: kills for name, kills in whole.kills.items() if name.startswith("document.")}


def test_more_reasons_than_a_byte_counts_are_told_apart() -> None:
    rules = tuple(rule("text", "num_words", 100 + number) for number in range(300))
    found, _ = judged(frame_of(page("two words")), rules, ["a"])
    assert {(kills.own, kills.marginal) for kills in found.kills.values()} == {(1, 0)}


def test_only_columns_of_the_rules_are_read() -> None:
    rules = (
        Rule(on="text", signal="num_words", min=3, when=Threshold(signal="num_characters", min=3)),
        rule("document", "stop_word_ratio", 0.1),
    )
    needed = {"block_num_words", "block_num_characters", "block_num_stop_words"}
    assert columns_read(rules) == needed
    assert signals_named(rules[:1]) == ("num_words", "num_characters")
    documents = [PAGE]
    small = Frame.of(
        signals_table(documents).select(["block_kind", *sorted(needed)]), image_signals_table(documents, {}).select([])
    )
    assert judged(small, rules, ["a"])[0].masks.keep.tolist() == [True]


def test_reasons_read_like_the_recipe_and_later_passes_move_no_code() -> None:
    passes = PASSES.validate_python(
        [
            {
                "name": "blocks",
                "kind": "rules",
                "rules": (
                    {"on": "document", "signal": "num_images", "min": 1, "max": 30.0},
                    {"on": "text", "signal": "num_words", "max": 1_000_000, "kinds": ("list", "table")},
                    {"on": "image", "signal": "aspect", "below": 2.5},
                    {"on": "document", "signal": "language", "one_of": ("en", "fr")},
                ),
            },
            {"name": "repeats", "kind": "repeats", "by": ("url", "text")},
        ]
    )
    names = (
        "signals_failed",
        "image_missing",
        "text.num_words > 1000000 (list, table)",
        "image.aspect >= 2.5",
        "no_blocks_left",
        "document.num_images < 1",
        "document.num_images > 30",
        "document.language not in en, fr",
    )
    assert Reasons.of(passes[:1]).names == names
    assert Reasons.of(passes).names == (*names, "repeat.url", "repeat.text")


def test_kinds_are_stored_by_their_place_in_the_list_of_kinds() -> None:
    frame = frame_of(PAGE)
    assert [KINDS[number] for number in frame.kinds.tolist()] == list(PAGE.kinds)
