"""What image files tell, and how many images a document has."""

from __future__ import annotations

import numpy as np
from curate_pages import Block, frame_of, image_file, page

from carnac.curate.signals.catalogue import signals_on

WIDE: Block = ("image", "http://a.example/wide.png")
TALL: Block = ("image", "http://a.example/tall.png")
GONE: Block = ("image", "http://a.example/gone.png")
FILES = {WIDE[1]: image_file(400, 100, "image/jpeg", 1234), TALL[1]: image_file(100, 250)}
FRAME = frame_of(page("Four words stand here.", WIDE, TALL, GONE, "Two more."), page("No picture."), files=FILES)
IMAGES = signals_on("image")
DOCUMENTS = signals_on("document")


def test_files_tell_size_shape_format_and_length() -> None:
    assert IMAGES["width"].value(FRAME)[1:3].tolist() == [400, 100]
    assert IMAGES["height"].value(FRAME)[1:3].tolist() == [100, 250]
    assert IMAGES["aspect"].value(FRAME)[1:3].tolist() == [4, 2.5]
    assert IMAGES["bytes"].value(FRAME)[1:3].tolist() == [1234, 5000]
    assert IMAGES["media_type"].value(FRAME).to_pylist()[1:3] == ["image/jpeg", "image/png"]


def test_without_a_file_nothing_of_it_is_known() -> None:
    for name in ("width", "height", "aspect", "bytes"):
        assert np.isnan(IMAGES[name].value(FRAME)[[0, 3, 4, 5]]).all(), name
    assert IMAGES["media_type"].value(FRAME)[3].as_py() is None


def test_images_are_counted_over_the_kept_blocks() -> None:
    assert DOCUMENTS["num_images"].value(FRAME).tolist() == [3, 0]
    assert DOCUMENTS["num_missing_images"].value(FRAME).tolist() == [1, 0]
    left = FRAME.with_kept(np.array([True, False, True, False, True, True]))
    assert DOCUMENTS["num_images"].value(left).tolist() == [1, 0]
    assert DOCUMENTS["num_missing_images"].value(left).tolist() == [0, 0]


def test_words_per_image_are_those_that_are_kept_and_not_known_without_an_image() -> None:
    per_image = DOCUMENTS["words_per_image"].value(FRAME)
    assert per_image[0] == 2
    assert np.isnan(per_image[1])
    left = FRAME.with_kept(np.array([True, True, False, False, False, True]))
    assert DOCUMENTS["words_per_image"].value(left)[0] == 4
