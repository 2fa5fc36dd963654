from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from curate_pages import PASSES, documents_table, page, sample_pages, signals_table
from hypothesis import given
from hypothesis import strategies as st

from carnac.core.document import Document
from carnac.core.errors import InputError
from carnac.core.schema import MASKS
from carnac.curate.catalogue import NAMES, Level
from carnac.curate.rules import judge, judge_part
from carnac.curate.settings import Rule, RulesPass, TextKind
from carnac.curate.signals import ImageMeasure, failed_row, measure_document
from carnac.curate.verdicts import Reasons, Verdict, keep_all, masks_table, reasons_of_pass, verdict_from_row

IMAGES = {
    "http://a.example/wide.png": ImageMeasure(width=400, height=100, kept=True),
    "http://a.example/good.png": ImageMeasure(width=400, height=300, kept=True),
    "http://a.example/gone.png": ImageMeasure(width=400, height=300, kept=False),
}
PAGE = page(
    ("heading", "Carnac"),
    "The stones stand in long lines on the heath.",
    "Read more",
    ("image", "http://a.example/wide.png"),
    ("image", "http://a.example/good.png"),
    ("image", "http://a.example/gone.png"),
)


def rule(on: Level, signal: str, low: float | None = None, high: float | None = None, *kinds: TextKind) -> Rule:
    return Rule(on=on, signal=signal, min=low, max=high, kinds=kinds or None)


def judge_page(document: Document, *rules: Rule, last: Verdict | None = None) -> tuple[Verdict, list[str | None]]:
    """Judge by one pass; the second value names the reasons of the document and of each block."""
    reasons = Reasons.of([RulesPass(name="a", kind="rules", rules=rules)])
    verdict = judge(measure_document(document, IMAGES), document.kinds, last, rules, reasons)
    codes = (verdict.reason, *verdict.block_reason)
    return verdict, [None if code is None else reasons.names[code] for code in codes]


def test_text_rules_judge_blocks_of_their_kinds() -> None:
    verdict, names = judge_page(PAGE, rule("text", "num_words", 3, None, "paragraph"))
    assert verdict.keep
    assert verdict.keep_block == (True, True, False, True, True, True)
    assert names == [None, None, None, "text.num_words < 3 (paragraph)", None, None, None]
    _, names = judge_page(PAGE, rule("text", "num_words", 3))
    assert names[1] == names[3] == "text.num_words < 3"


def test_image_rules_drop_what_has_no_file_by_name() -> None:
    verdict, names = judge_page(PAGE, rule("image", "width", 64), rule("image", "aspect", None, 3))
    assert verdict.keep_block == (True, True, True, False, True, False)
    assert names[4:] == ["image.aspect > 3", None, "image_missing"]


def test_without_image_rules_a_missing_image_stays() -> None:
    assert judge_page(PAGE, rule("text", "num_words", 1))[0].keep_block[5]


def test_document_rules_see_what_the_block_rules_of_the_pass_left() -> None:
    images = rule("document", "num_images", None, 2)
    verdict, names = judge_page(PAGE, images)
    assert (verdict.keep, names[0]) == (False, "document.num_images > 2")
    verdict, names = judge_page(PAGE, images, rule("image", "width", 1))
    assert (verdict.keep, names[0]) == (True, None)
    words = rule("document", "num_words", 11)  # 1 + 9 + 2 on the page, 9 after the block rule
    assert judge_page(PAGE, words)[0].keep
    assert judge_page(PAGE, words, rule("text", "num_words", 3))[1][0] == "document.num_words < 11"


@pytest.mark.parametrize("threshold", [0.1, 0.3, 4 / 9])
def test_thresholds_are_inclusive(threshold: float) -> None:
    document = page("The stones stand in long lines on the heath.")  # 4 stop words of 9: the, in, on, the
    for low, high in ((4 / 9, None), (None, 4 / 9)):
        assert judge_page(document, rule("text", "stop_word_ratio", low, high))[0].keep
    assert not judge_page(document, rule("text", "stop_word_ratio", 4 / 9 + 1e-9))[0].keep
    assert judge_page(document, rule("text", "stop_word_ratio", None, threshold))[0].keep == (threshold == 4 / 9)


def test_a_document_whose_blocks_all_go_goes() -> None:
    verdict, names = judge_page(page("Next", "Home"), rule("text", "num_words", 2))
    assert not verdict.keep
    assert names == ["no_blocks_left", "text.num_words < 2", "text.num_words < 2"]
    assert judge_page(page(), rule("image", "width", 2))[1] == ["no_blocks_left"]


def test_a_document_that_could_not_be_measured_goes() -> None:
    rules = (rule("text", "num_words", 1),)
    reasons = Reasons.of([RulesPass(name="a", kind="rules", rules=rules)])
    verdict = judge(failed_row(PAGE, "too_deep"), PAGE.kinds, None, rules, reasons)
    assert not verdict.keep
    assert verdict.reason == reasons.code("signals_failed")
    assert verdict.keep_block == (True,) * 6


def test_what_was_dropped_keeps_its_first_reason_and_is_not_judged_again() -> None:
    last = Verdict(keep=True, reason=None, keep_block=(False,) + (True,) * 5, block_reason=(2,) + (None,) * 5)
    verdict, _ = judge_page(PAGE, rule("text", "num_words", 5), last=last)
    assert verdict.block_reason == (2, None, 1, None, None, None)
    dropped = Verdict(keep=False, reason=0, keep_block=last.keep_block, block_reason=last.block_reason)
    assert judge_page(PAGE, rule("text", "num_words", 5), last=dropped)[0] == dropped


RULES = st.builds(
    lambda level, pick, value, is_min: Rule(
        on=level,
        signal=NAMES[level][pick % len(NAMES[level])],
        min=value if is_min else None,
        max=None if is_min else value,
    ),
    st.sampled_from(["text", "image", "document"]),
    st.integers(0, 20),
    st.sampled_from([0.0, 0.05, 0.3, 1.0, 3.0, 30.0, 300.0]),
    st.booleans(),
)
RULES_PASSES = st.lists(st.lists(RULES, min_size=1, max_size=4), min_size=1, max_size=4)


@given(RULES_PASSES, st.integers(0, 19))
def test_nothing_comes_back_and_reasons_never_change(recipe: list[list[Rule]], number: int) -> None:
    passes = [RulesPass(name=f"p{n}", kind="rules", rules=tuple(rules)) for n, rules in enumerate(recipe)]
    documents, images = sample_pages()
    document = documents[number]
    signals = measure_document(document, images)
    last = keep_all(len(document.kinds))
    for count, pass_ in enumerate(passes, start=1):
        verdict = judge(signals, document.kinds, last, pass_.rules, Reasons.of(passes[:count]))
        assert verdict.keep <= last.keep
        assert last.keep or verdict == last
        assert (verdict.reason is None) == verdict.keep
        for before, after, old, new in zip(
            last.keep_block, verdict.keep_block, last.block_reason, verdict.block_reason, strict=True
        ):
            assert after <= before
            assert before or old == new
            assert (new is None) == after
        last = verdict


@given(RULES_PASSES)
def test_codes_of_reasons_round_trip_and_later_passes_do_not_move_them(recipe: list[list[Rule]]) -> None:
    passes = [RulesPass(name=f"p{n}", kind="rules", rules=tuple(rules)) for n, rules in enumerate(recipe)]
    reasons = Reasons.of(passes)
    assert [reasons.code(name) for name in reasons.names] == list(range(len(reasons.names)))
    assert Reasons.from_table(masks_table([], [], reasons)) == reasons
    for count in range(len(passes) + 1):
        earlier = Reasons.of(passes[:count]).names
        assert reasons.names[: len(earlier)] == earlier
    assert set(reasons.names) == {name for pass_ in passes for name in reasons_of_pass(pass_)}


def test_reasons_read_like_the_recipe() -> None:
    passes = PASSES.validate_python(
        [
            {
                "name": "blocks",
                "kind": "rules",
                "rules": (
                    {"on": "document", "signal": "num_images", "min": 1, "max": 30.0},
                    {"on": "text", "signal": "num_words", "max": 1_000_000, "kinds": ("list", "table")},
                    {"on": "image", "signal": "aspect", "max": 2.5},
                ),
            },
            {"name": "repeats", "kind": "repeats", "by": ("url", "text")},
        ]
    )
    assert Reasons.of(passes).names == (
        "signals_failed",
        "image_missing",
        "text.num_words > 1000000 (list, table)",
        "image.aspect > 2.5",
        "no_blocks_left",
        "document.num_images < 1",
        "document.num_images > 30",
        "repeat.url",
        "repeat.text",
    )


def test_a_part_is_judged_row_by_row() -> None:
    documents, images = sample_pages()
    table, signals = documents_table(documents), signals_table(documents, images)
    blocks = RulesPass(name="b", kind="rules", rules=(rule("text", "num_words", 3), rule("image", "width", 64)))
    pages = RulesPass(name="d", kind="rules", rules=(rule("document", "num_images", 3),))
    first = judge_part(table, signals, None, blocks.rules, Reasons.of([blocks]))
    second = judge_part(table, signals, first, pages.rules, Reasons.of([blocks, pages]))
    assert first.schema.equals(MASKS)
    assert first["id"] == second["id"] == table["id"]
    assert Reasons.from_table(second).names[-1] == "document.num_images < 3"
    kept = [verdict_from_row(row) for row in second.to_pylist()]
    assert 0 < sum(verdict.keep for verdict in kept) < len(kept)
    for document, verdict in zip(documents, kept, strict=True):
        assert len(verdict.keep_block) == len(document.kinds)
    assert masks_table(table["id"].to_pylist(), kept, Reasons.from_table(second)).equals(second, check_metadata=True)


def test_parts_of_other_documents_are_refused() -> None:
    documents, rules = [PAGE, page("other")], (rule("text", "num_words", 1),)
    table, signals = documents_table(documents), signals_table(documents)
    reasons = Reasons.of([RulesPass(name="a", kind="rules", rules=rules)])
    with pytest.raises(InputError, match="different documents from row 1 on"):
        judge_part(table, signals.slice(0, 1), None, rules, reasons)
    with pytest.raises(InputError, match="from row 0 on"):
        judge_part(table, signals.take([1, 0]), None, rules, reasons)


def test_a_part_without_reasons_is_refused() -> None:
    rows: list[dict[str, Any]] = []
    with pytest.raises(InputError, match=r"lacks the metadata carnac\.reasons"):
        Reasons.from_table(pa.Table.from_pylist(rows, schema=MASKS))
