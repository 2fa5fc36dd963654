"""Squares, native pictures and quarters against the image processors of Idefics and Idefics2: the pixels themselves."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from pydantic import ValidationError
from sequence_pages import real_images
from transformers.models.idefics.image_processing_pil_idefics import IdeficsImageProcessorPil
from transformers.models.idefics2.image_processing_pil_idefics2 import Idefics2ImageProcessorPil

from carnac.core.errors import RecordError
from carnac.sequence.normalisation import fit_pictures
from carnac.sequence.pixels import Pixels, grey_pixels, image_tokens, load_pixels, picture_size
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tiles import native_size, tiling, whole_patches

ODD = [(1, 1000), (1000, 1), (3, 5), (1, 1), (97, 31), (31, 97), (64, 64), (65, 64), (640, 480), (48, 50)]
SIDES = st.sampled_from([(16, 4, None), (56, 14, 28), (64, 16, 64), (42, 14, 17), (70, 14, None)])


def native(size_px: int = 56, patch_px: int = 14, shortest_px: int | None = 28, **given: Any) -> PictureSettings:
    sizes: dict[str, Any] = {"size_px": size_px, "patch_px": patch_px, "shortest_px": shortest_px}
    return PictureSettings(aspect="native", resample="bilinear", **{**sizes, **given})


@cache
def theirs(longest_px: int, shortest_px: int, split: bool) -> Any:
    return Idefics2ImageProcessorPil(
        size={"shortest_edge": shortest_px, "longest_edge": longest_px}, do_image_splitting=split
    )


def wanted(image: Image.Image, pictures: PictureSettings) -> list[Pixels]:
    """What transformers' processor makes of a picture, cut to the whole patches that its model sees: [3, h, w] each."""
    process = theirs(pictures.size_px, pictures.shortest_px or pictures.patch_px, pictures.max_tiles > 1)
    made = process([[image]], return_tensors="np")
    found = []
    for values, mask in zip(made["pixel_values"][0], made["pixel_attention_mask"][0], strict=True):
        height, width = (
            int(side) // pictures.patch_px * pictures.patch_px for side in (mask[:, 0].sum(), mask[0].sum())
        )
        found.append(np.asarray(values[:, :height, :width]))
    return found


def shown(square: Pixels) -> Pixels:
    """Return the part of a square that is a picture, [3, h, w]; assert that it is a rectangle and the rest is NaN."""
    finite = np.isfinite(square)
    height, width = int(finite[0, :, 0].sum()), int(finite[0, 0].sum())
    inside = np.zeros_like(finite)
    inside[:, :height, :width] = True
    assert (finite == inside).all()
    return np.asarray(square[:, :height, :width])


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def white_behind(payload: bytes) -> Image.Image:
    with Image.open(io.BytesIO(payload)) as opened:
        layer = ImageOps.exif_transpose(opened).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def check(image: Image.Image, payload: bytes, pictures: PictureSettings) -> None:
    found, expected = load_pixels(payload, pictures), wanted(image, pictures)
    assert found.shape == (len(expected), 3, pictures.size_px, pictures.size_px)
    assert found.dtype == np.float32
    for one, other in zip(found, expected, strict=True):
        assert shown(one).shape == other.shape
        assert np.abs(shown(one) - other).max() < 1e-6  # rounding; two levels of a byte differ by 0.008


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize("shortest_px", [None, 28, 56])
def test_odd_pictures_are_those_of_transformers(size: tuple[int, int], shortest_px: int | None) -> None:
    image = noise(*size)
    check(image, encoded(image), native(shortest_px=shortest_px))
    if min(size) > 1:  # a side of one pixel has no half: transformers stops there
        check(image, encoded(image), native(shortest_px=shortest_px, max_tiles=2))


@given(width=st.integers(1, 200), height=st.integers(1, 200), sides=SIDES, split=st.booleans())
@example(width=200, height=1, sides=(16, 4, None), split=False)
@settings(max_examples=80, deadline=None)
def test_any_picture_is_that_of_transformers(
    width: int, height: int, sides: tuple[int, int, int | None], split: bool
) -> None:
    assume(not split or min(width, height) > 1)
    image = noise(width, height)
    check(image, encoded(image, compress_level=0), native(*sides, max_tiles=2 if split else 1))


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), shortest_px=st.sampled_from([14, 378, 980]))
@example(width=1, height=5000, shortest_px=14)
@settings(max_examples=300)
def test_any_size_becomes_whole_patches_within_bounds(width: int, height: int, shortest_px: int) -> None:
    pictures = native(980, 14, shortest_px)
    fitted = native_size((width, height), pictures)
    assert all(shortest_px <= side <= 980 for side in fitted)
    across, down = whole_patches(fitted, pictures)
    assert across % 14 == down % 14 == 0
    assert min(across, down) >= 14
    assert fitted[0] - across < 14 > fitted[1] - down
    assert native_size((height, width), pictures) == fitted[::-1]


@pytest.mark.parametrize("split", [False, True])
def test_real_pictures_are_those_of_transformers(split: bool) -> None:
    pictures = native(112, 14, 42, max_tiles=2 if split else 1)
    for payload in real_images()[:: 4 if split else 1]:
        check(white_behind(payload), payload, pictures)


@pytest.mark.parametrize("split", [False, True])
def test_quarters_of_squares_are_those_of_transformers(split: bool) -> None:
    image = noise(50, 81)
    process: Any = Idefics2ImageProcessorPil(size={"height": 28, "width": 28}, do_image_splitting=split)
    expected = process([[image]], return_tensors="np")["pixel_values"][0]
    pictures = PictureSettings(
        size_px=28, patch_px=14, marks="idefics2", max_tiles=2 if split else 1, resample="bilinear"
    )
    found = load_pixels(encoded(image), pictures)
    assert found.shape == expected.shape == ((5 if split else 1), 3, 28, 28)
    assert np.abs(found - expected).max() < 1e-6


def test_squares_are_those_of_idefics() -> None:
    size_px = 224
    process: Any = IdeficsImageProcessorPil(image_size=size_px)
    pictures = PictureSettings(size_px=size_px, patch_px=14, tokens=1, marks="idefics")
    pictures = fit_pictures(pictures, model_type="clip_vision_model")
    payloads = [*(encoded(noise(*size)) for size in ODD), *real_images()]
    exact = 0
    for payload in payloads:
        image = white_behind(payload)
        found, expected = load_pixels(payload, pictures), process(image, return_tensors="np")
        if max(image.size) < 4 * size_px:  # beyond it JPEGs are decoded small; from 6 times on whole factors go first
            assert np.abs(found - expected).max() < 1e-5  # rounding; two levels of a byte differ by 0.014
            exact += 1
        assert np.abs(found - expected).mean() < 0.03
    assert exact > len(payloads) / 2


def test_the_quarters_of_a_line_of_one_pixel_are_the_line() -> None:
    pictures = native(28, 14, None, max_tiles=2)
    squares = [shown(square) for square in load_pixels(encoded(noise(1, 40)), pictures)]
    assert [square.shape for square in squares] == [(3, 14, 14)] * 4 + [(3, 28, 14)]
    assert np.array_equal(squares[0], squares[1])
    assert np.array_equal(squares[2], squares[3])
    assert not np.array_equal(squares[0], squares[2])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("split", [False, True])
def test_turned_pictures_stand_upright(split: bool, form: str, orientation: int) -> None:
    drawn = noise(4, 3).resize((80, 60), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    payload = encoded(drawn, form, exif=exif, **options)
    with Image.open(io.BytesIO(payload)) as opened:
        upright = ImageOps.exif_transpose(opened).convert("RGB")
    assert upright.size == ((80, 60) if orientation < 5 else (60, 80))
    check(upright, payload, native(max_tiles=2 if split else 1))


def test_a_png_that_says_late_which_way_is_up_stands_upright() -> None:
    image, exif = noise(120, 50), Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, exif=exif)
    at = data.index(b"eXIf") - 4
    length = int.from_bytes(data[at : at + 4], "big") + 12
    end = data.index(b"IEND") - 4
    late = data[:at] + data[at + length : end] + data[at : at + length] + data[end:]
    check(image.transpose(Image.Transpose.ROTATE_270), late, native())


@pytest.mark.parametrize("split", [False, True])
def test_large_jpegs_are_decoded_small_and_keep_their_shape(split: bool) -> None:
    image = noise(40, 25).resize((3999, 2501), Image.Resampling.BICUBIC)
    payload = encoded(image, "JPEG", quality=95)
    with Image.open(io.BytesIO(payload)) as opened:
        whole = encoded(opened.convert("RGB"), compress_level=0)
    pictures = native(max_tiles=2 if split else 1)
    small, large = load_pixels(payload, pictures), load_pixels(whole, pictures)
    assert np.array_equal(np.isnan(small), np.isnan(large))
    difference = np.nan_to_num(small - large)
    assert 0 < np.abs(difference).mean() < 0.01


def test_transparency_is_laid_on_white() -> None:
    image = noise(30, 20).convert("RGBA")
    image.putalpha(0)
    for pictures in (native(), native(max_tiles=2)):
        assert all((shown(square) == 1).all() for square in load_pixels(encoded(image), pictures))


def test_a_picture_that_does_not_decode_is_a_whole_grey_square() -> None:
    for pictures in (native(), native(max_tiles=2)):
        with pytest.raises(RecordError, match="image_does_not_decode"):
            load_pixels(b"<html>", pictures)
        assert (grey_pixels(pictures) == 0).all()
        assert grey_pixels(pictures).shape == (3, 56, 56)
        assert tiling(picture_size(b"<html>"), pictures) == tiling((640, 480), pictures)


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), split=st.booleans(), neighbour=st.booleans())
def test_the_size_of_a_picture_changes_no_count(width: int, height: int, split: bool, neighbour: bool) -> None:
    pictures = native(tokens=7, max_tiles=2 if split else 1)
    squares = 5 if split else 1
    assert image_tokens(width, height, pictures, neighbour=neighbour) == squares * 7
    marked = pictures.changed({"marks": "idefics2"})
    assert image_tokens(width, height, marked, neighbour=neighbour) == squares * 8 + (not neighbour)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"shortest_px": 32}, r"shortest_px = 32 is for aspect = native only, got aspect = square"),
        ({"aspect": "native", "shortest_px": 112}, r"shortest_px = 112 is not between patch_px = 16 and size_px = 96"),
        ({"aspect": "native", "shortest_px": 8}, r"shortest_px = 8 is not between patch_px = 16 and size_px = 96"),
        ({"aspect": "native", "max_tiles": 3}, r"aspect = native shows a picture whole .* got max_tiles = 3"),
        ({"marks": "idefics2", "max_tiles": 4}, r"marks = idefics2 shows a picture whole .* got max_tiles = 4"),
        ({"marks": "idefics", "max_tiles": 2}, r"marks = idefics stand around whole pictures, got max_tiles = 2"),
        ({"aspect": "round"}, r"'square' or 'native'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_with_a_sentence(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        PictureSettings(**wrong)
    with pytest.raises(ValueError, match=sentence):
        PictureSettings().changed(wrong)


def test_changed_sizes_are_checked_against_the_shortest_side() -> None:
    with pytest.raises(ValueError, match="shortest_px = 28 is not between patch_px = 14 and size_px = 14"):
        native().changed({"size_px": 14})
    assert native().changed({"size_px": 70}).shortest_px == 28


def test_quarters_need_no_even_side() -> None:
    assert native(21, 7, None, max_tiles=2).quartered
    assert PictureSettings(size_px=21, patch_px=7, marks="idefics2", max_tiles=2).quartered
    assert not native(21, 7, None).quartered
