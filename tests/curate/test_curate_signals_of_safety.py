"""What the scores say of an image, and of the images that a document keeps."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from carnac.core.document import KINDS
from carnac.curate.masks import IMAGE_MISSING
from carnac.curate.settings import Rule, RulesPass
from carnac.curate.signals.catalogue import column_named, signals_on
from carnac.curate.signals.frame import Frame
from carnac.curate.signals.of_safety import SAFETY_COLUMNS, SAFETY_SIGNALS

IMAGE, TEXT = KINDS.index("image"), KINDS.index("paragraph")


def frame() -> Frame:
    return Frame.of(
        pa.table(
            {
                "block_kind": pa.array([[TEXT, IMAGE, IMAGE], [IMAGE], [TEXT], []], pa.list_(pa.int8())),
                "block_has_image": pa.array([[None, True, True], [False], [None], []], pa.list_(pa.bool_())),
                "block_nsfw_score": pa.array([[None, 0.25, 0.75], [None], [None], []], pa.list_(pa.float32())),
            }
        )
    )


def test_the_largest_score_of_a_document_is_over_the_images_it_keeps() -> None:
    largest = signals_on("document")["max_nsfw_score"]
    np.testing.assert_array_equal(largest.value(frame()), [0.75, np.nan, np.nan, np.nan])
    kept = frame().with_kept(np.array([True, True, False, True, True]))
    np.testing.assert_array_equal(largest.value(kept), [0.25, np.nan, np.nan, np.nan])


def test_a_rule_on_scores_drops_images_without_a_file() -> None:
    rule = Rule(on="image", signal="nsfw_score", max=0.8)
    assert IMAGE_MISSING in RulesPass(name="safe", kind="rules", rules=(rule,)).reasons()
    np.testing.assert_array_equal(rule.known().value(frame()), [np.nan, 0.25, 0.75, np.nan, np.nan])


def test_a_picture_without_a_score_counts_as_unsafe() -> None:
    unscored = Frame.of(
        pa.table(
            {
                "block_kind": pa.array([[IMAGE, IMAGE], [IMAGE]], pa.list_(pa.int8())),
                "block_has_image": pa.array([[True, True], [False]], pa.list_(pa.bool_())),
                "block_nsfw_score": pa.array([[0.25, None], [None]], pa.list_(pa.float32())),
            }
        )
    )
    np.testing.assert_array_equal(signals_on("image")["nsfw_score"].value(unscored), [0.25, 1.0, np.nan])
    np.testing.assert_array_equal(signals_on("document")["max_nsfw_score"].value(unscored), [1.0, np.nan])


def test_all_columns_of_safety_are_known_and_read_of_image_files() -> None:
    for signal in SAFETY_SIGNALS:
        assert signals_on(signal.level)[signal.name] is signal
    for column in SAFETY_COLUMNS:
        assert column_named(column.name).table == "image_signals"
