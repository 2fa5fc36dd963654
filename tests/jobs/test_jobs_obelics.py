"""`recipes/obelics` holds every published threshold, each judged right just above and below, in the order of steps.

The published figures are written down here from the paper (arXiv 2306.16527, appendix A, tables 2 and 3), the published
code and Gopher (arXiv 2112.11446, table A1), apart from the recipe.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter
from story_runs import ROOT

from carnac.core.document import KINDS
from carnac.curate.lists.settings import ListsPass
from carnac.curate.masks import Masks, Reasons
from carnac.curate.repeats.settings import RepeatsPass
from carnac.curate.rules import judge_rules
from carnac.curate.settings import Rule, RulesPass
from carnac.curate.signals.catalogue import column_named, signals_on
from carnac.curate.signals.frame import Frame
from carnac.jobs.curate_passes import AnyPass, FetchPass, Passes

RECIPE = ROOT / "recipes" / "obelics" / "02-curate.toml"
# (pass, level, signal) -> (smallest kept, largest kept), None where there is no such side.
PUBLISHED: Mapping[tuple[str, str, str], tuple[float | None, float | None]] = {
    ("repetition", "document", "duplicate_line_ratio"): (None, 0.30),
    ("repetition", "document", "duplicate_paragraph_ratio"): (None, 0.30),
    ("repetition", "document", "duplicate_line_character_ratio"): (None, 0.20),
    ("repetition", "document", "duplicate_paragraph_character_ratio"): (None, 0.20),
    ("repetition", "document", "top_2gram_character_ratio"): (None, 0.20),
    ("repetition", "document", "top_3gram_character_ratio"): (None, 0.18),
    ("repetition", "document", "top_4gram_character_ratio"): (None, 0.16),
    ("repetition", "document", "duplicate_5gram_character_ratio"): (None, 0.15),
    ("repetition", "document", "duplicate_6gram_character_ratio"): (None, 0.14),
    ("repetition", "document", "duplicate_7gram_character_ratio"): (None, 0.13),
    ("repetition", "document", "duplicate_8gram_character_ratio"): (None, 0.12),
    ("repetition", "document", "duplicate_9gram_character_ratio"): (None, 0.11),
    ("repetition", "document", "duplicate_10gram_character_ratio"): (None, 0.10),
    ("image-addresses", "image", "banned_url_words"): (None, 0),
    ("blocks", "image", "width"): (150, 20_000),
    ("blocks", "image", "height"): (150, 20_000),
    ("blocks", "image", "declared_width"): (150, 20_000),
    ("blocks", "image", "declared_height"): (150, 20_000),
    ("blocks", "image", "aspect"): (None, 2),
    ("blocks", "text", "num_words"): (4, 1000),
    ("blocks", "text", "character_repetition"): (None, 0.1),
    ("blocks", "text", "word_repetition"): (None, 0.1),
    ("blocks", "text", "special_character_ratio"): (None, 0.3),
    ("blocks", "text", "stop_word_ratio"): (0.3, None),
    ("blocks", "text", "flagged_word_ratio"): (None, 0.01),
    ("blocks", "text", "punctuation_ratio"): (0.001, None),
    ("blocks", "text", "common_word_ratio"): (0.8, None),
    ("documents", "document", "num_images"): (1, 30),
    ("documents", "document", "num_words"): (10, 2000),
    ("documents", "document", "character_repetition"): (None, 0.1),
    ("documents", "document", "word_repetition"): (None, 0.2),
    ("documents", "document", "special_character_ratio"): (None, 0.275),
    ("documents", "document", "stop_word_ratio"): (0.35, None),
    ("documents", "document", "flagged_word_ratio"): (None, 0.01),
    ("documents", "document", "punctuation_ratio"): (0.03, None),
    ("documents", "document", "common_word_ratio"): (0.9, None),
    ("documents", "document", "language_score"): (0.8, None),
    ("documents", "document", "perplexity"): (None, 1500),
    ("safety", "document", "max_nsfw_score"): (None, 0.85),
    ("cleaning", "document", "num_text_blocks"): (1, None),
    ("cleaning", "document", "num_images"): (1, None),
    ("spam", "document", "num_text_blocks"): (1, None),
    ("spam", "document", "num_images"): (1, None),
}
# The order of the published code; the paper tells another one.
ORDER = (
    "english", "near-duplicates", "repetition", "images", "image-addresses", "blocks", "documents", "image-repeats",
    "safety", "addresses", "paragraphs", "cleaning", "image-sets", "opted-out", "images-again", "spam",
)  # fmt: skip
TEXT, IMAGE = KINDS.index("paragraph"), KINDS.index("image")
WHOLE = 60_000  # of what shares are taken of: 0.001, 0.275 and 0.12 are whole numbers of it


def recipe_passes() -> dict[str, AnyPass]:
    """Return the passes of the recipe by name."""
    tables = tomllib.loads(RECIPE.read_text())["pass"]
    adapter: TypeAdapter[tuple[AnyPass, ...]] = TypeAdapter(Passes)
    return {step.name: step for step in adapter.validate_json(_json(tables), strict=True)}


def _json(tables: Any) -> bytes:
    import json

    return json.dumps(tables).encode()


PASSES = recipe_passes()


def rules_of(name: str) -> tuple[Rule, ...]:
    step = PASSES[name]
    assert isinstance(step, RulesPass)
    return step.rules


def sides() -> Iterator[Any]:
    """Yield (pass, rule, threshold, whether it is the lower one) of every numeric threshold."""
    for (name, level, signal), (low, high) in PUBLISHED.items():
        for threshold, is_low in ((low, True), (high, False)):
            if threshold is not None:
                yield pytest.param(name, level, signal, threshold, is_low, id=f"{name}-{level}-{signal}-{threshold:g}")


def columns_with(rule: Rule, value: float) -> dict[str, Any]:
    """Return stored columns of one block, or of a document of a text and an image, with a signal of `value`."""
    names = list(signals_on(rule.on)[rule.signal].columns)
    if rule.signal == "aspect":
        return {"block_width": round(1000 * value), "block_height": 1000, "block_has_image": True}
    if rule.signal == "perplexity":
        return {"block_log10_probability": -1000 * float(np.log10(value)), "block_num_scored_tokens": 1000}
    if rule.signal == "punctuation_ratio":
        marks = round(value * WHOLE)
        return {"block_num_punctuation": marks, "block_num_pieces": WHOLE - marks}
    if rule.signal.endswith("_ratio") and len(names) == 2:
        part, whole = names
        return {part: round(value * WHOLE), whole: WHOLE}
    flags = {"block_has_image": True} if "block_has_image" in names else {}
    (column,) = [name for name in names if name != "block_has_image"]
    return {column: value, **flags}


def judged(rule: Rule, columns: Mapping[str, Any], kinds: list[int]) -> Masks:
    """Judge one document of blocks of `kinds` by one rule; `columns` are one value for every fitting block."""
    tables: dict[str, Any] = {"block_kind": pa.array([kinds], pa.list_(pa.int8()))}
    # Rules on what a file tells ask whether there is one.
    for name, value in columns.items():
        column = column_named(name)
        here = [value if (kind == IMAGE) == (rule.on == "image") or not column.is_of_blocks else None for kind in kinds]
        tables[name] = pa.array([here] if column.is_of_blocks else [value], column.field.type)
    frame = Frame.of(pa.table(tables))
    step = RulesPass(name="one", kind="rules", rules=(rule,))
    last = Masks.keeping_all(pa.chunked_array([["a"]]), frame.starts)
    return judge_rules(frame, last, np.zeros(1, np.bool_), [rule], Reasons.of([step])).masks


def is_kept(rule: Rule, value: float) -> bool:
    if rule.signal in ("num_images", "num_text_blocks"):
        kind, other = (IMAGE, TEXT) if rule.signal == "num_images" else (TEXT, IMAGE)
        return bool(judged(rule, {}, [other, *[kind] * int(value)]).keep[0])
    masks = judged(rule, columns_with(rule, value), [TEXT, IMAGE])
    if rule.on == "document":
        return bool(masks.keep[0])
    return bool(masks.keep_block[0 if rule.on == "text" else 1])


def step_of(rule: Rule, threshold: float) -> float:
    """Return how far off just above and just below lie: a whole unit of what is counted, a share's least."""
    counted = (
        "num_words", "num_images", "num_text_blocks", "width", "height", "declared_width", "declared_height",
        "banned_url_words",
    )  # fmt: skip
    if rule.signal in counted:
        return 1
    return 1 / WHOLE if threshold < 1 else threshold / 1000


@pytest.mark.parametrize(("name", "level", "signal", "threshold", "is_low"), list(sides()))
def test_each_published_threshold_keeps_what_is_just_inside_and_drops_what_is_just_outside(
    name: str, level: str, signal: str, threshold: float, is_low: bool
) -> None:
    (rule,) = [rule for rule in rules_of(name) if (rule.on, rule.signal) == (level, signal)]
    assert (rule.min if is_low else rule.max) == threshold
    inside = step_of(rule, threshold) * (1 if is_low else -1)
    # These two are logarithms and 32-bit numbers: just on the threshold they may fall to either side.
    if signal not in ("perplexity", "max_nsfw_score"):
        assert is_kept(rule, threshold)
    if threshold + inside >= 0:
        assert is_kept(rule, threshold + inside)
    assert not is_kept(rule, threshold - inside)


def test_spam_goes_from_the_threshold_on() -> None:
    (rule,) = [rule for rule in rules_of("spam") if rule.signal == "spam_word_ratio"]
    assert (rule.on, rule.below, rule.min, rule.max, rule.above) == ("text", 0.12, None, None, None)
    assert is_kept(rule, 0.12 - 1 / WHOLE)
    assert not is_kept(rule, 0.12)


def test_punctuation_of_short_paragraphs_is_not_judged() -> None:
    (rule,) = [rule for rule in rules_of("blocks") if rule.signal == "punctuation_ratio"]
    assert rule.when is not None
    assert (rule.when.signal, rule.when.min) == ("num_words_and_marks", 12)
    assert judged(rule, {"block_num_punctuation": 0, "block_num_pieces": 11}, [TEXT]).keep_block[0]
    assert not judged(rule, {"block_num_punctuation": 0, "block_num_pieces": 12}, [TEXT]).keep_block[0]


@pytest.mark.parametrize(
    ("word", "kept"), [("image/jpeg", True), ("image/png", True), ("image/webp", True), ("image/gif", False)]
)
def test_formats_are_those_of_obelics(word: str, kept: bool) -> None:
    (rule,) = [rule for rule in rules_of("blocks") if rule.signal == "media_type"]
    masks = judged(rule, {"block_media_type": word, "block_has_image": True}, [IMAGE, TEXT])
    assert bool(masks.keep_block[0]) is kept


@pytest.mark.parametrize(("word", "kept"), [("en", True), ("de", False)])
def test_documents_are_english(word: str, kept: bool) -> None:
    (rule,) = rules_of("english")
    assert bool(judged(rule, {"language": word}, [TEXT]).keep[0]) is kept


def test_every_threshold_of_the_recipe_is_a_published_one_and_the_other_way_round() -> None:
    there = {
        (step.name, rule.on, rule.signal): (rule.min, rule.max)
        for step in PASSES.values()
        if isinstance(step, RulesPass)
        for rule in step.rules
        if rule.one_of is None and rule.below is None
    }
    assert there == dict(PUBLISHED)


def test_the_steps_are_those_of_the_published_code_in_its_order() -> None:
    assert tuple(PASSES) == ORDER
    searches = {step.name: step for step in PASSES.values() if isinstance(step, RepeatsPass)}
    assert {name: step.by for name, step in searches.items()} == {
        "near-duplicates": ("near",),
        "image-repeats": ("image_url",),
        "addresses": ("url",),
        "paragraphs": ("paragraph",),
        "image-sets": ("image_set",),
        "images-again": ("image_in_document",),
    }
    # 06: counts above 10; 08 and 11: the latest; 09: three and more in a domain.
    assert searches["image-repeats"].max_image_copies == 10
    assert (searches["addresses"].keep, searches["image-sets"].keep) == ("latest", "latest")
    assert searches["paragraphs"].max_paragraph_copies == 2
    assert isinstance(PASSES["images"], FetchPass)
    assert isinstance(PASSES["opted-out"], ListsPass)


def test_a_run_of_the_recipe_ends_with_samples_and_a_reason_for_every_drop(tmp_path: Path) -> None:
    from story_runs import all_rows, carnac

    carnac(tmp_path, "run", str(RECIPE.parent))
    documents = all_rows(tmp_path / "out/obelics/documents")
    masks = all_rows(tmp_path / "out/obelics/curated/masks/spam")
    assert len(documents) == len(masks) == 198
    assert all((mask["reason"] is None) == mask["keep"] for mask in masks)
    kept = sum(mask["keep"] for mask in masks)
    assert 0 < kept < 198
    samples = all_rows(tmp_path / "out/obelics/shards/train") + all_rows(tmp_path / "out/obelics/shards/heldout")
    assert len(samples) == kept
