"""Tiles against transformers' own Idefics3 image processor: sizes, counts, and the pixels themselves."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from sequence_pages import real_images
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from carnac.sequence.pixels import image_tokens, load_pixels, picture_size
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tiles import tiling

SIDES = st.sampled_from([(2, 1), (14, 14), (30, 15), (32, 8), (364, 14), (384, 16)])


def tiled(size_px: int, max_tiles: int, **given: Any) -> PictureSettings:
    patch_px = given.pop("patch_px", size_px)
    return PictureSettings(size_px=size_px, patch_px=patch_px, max_tiles=max_tiles, resample="lanczos", **given)


@cache
def theirs(size_px: int, max_tiles: int) -> Any:
    return Idefics3ImageProcessorPil(
        size={"longest_edge": max_tiles * size_px}, max_image_size={"longest_edge": size_px}, return_row_col_info=True
    )


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


@given(
    width=st.integers(1, 5000), height=st.integers(1, 5000), sides=SIDES, max_tiles=st.integers(2, 6), tokens=st.just(9)
)
@example(width=1, height=5000, sides=(364, 14), max_tiles=4, tokens=9)
@example(width=5000, height=1, sides=(14, 14), max_tiles=6, tokens=9)
@settings(max_examples=1000, deadline=None)
def test_any_size_is_cut_as_transformers_counts(
    width: int, height: int, sides: tuple[int, int], max_tiles: int, tokens: int
) -> None:
    found = tiling((width, height), tiled(sides[0], max_tiles, patch_px=sides[1], tokens=tokens))
    squares, rows, columns = theirs(sides[0], max_tiles).get_number_of_image_patches(height, width)
    assert (found.squares, found.rows, found.columns) == (squares, rows, columns)
    assert max(found.rows, found.columns) == max_tiles


@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    size_px=st.sampled_from([14, 30, 32, 48]),
    max_tiles=st.integers(2, 5),
)
@settings(max_examples=60, deadline=None)
def test_the_squares_are_those_of_transformers_to_the_bit(
    width: int, height: int, size_px: int, max_tiles: int
) -> None:
    image = noise(width, height)
    pictures = tiled(size_px, max_tiles)
    # A line of one pixel: transformers rounds its width to 0 and stops ("size must be a dictionary ...").
    assume(min(width, height) > 1)
    wanted = theirs(size_px, max_tiles)([[image]], return_tensors="np")
    got = load_pixels(png(image), pictures)
    found = tiling((width, height), pictures)
    assert (wanted["rows"][0][0], wanted["cols"][0][0]) == (found.rows, found.columns)
    assert got.shape == wanted["pixel_values"][0].shape
    assert (np.round((got + 1) * 127.5) == np.round((wanted["pixel_values"][0] + 1) * 127.5)).all()
    assert np.abs(got - wanted["pixel_values"][0]).max() < 1e-6


def test_real_pictures_are_shown_as_transformers_shows_them() -> None:
    pictures = tiled(56, 4)
    differences = []
    for payload in real_images():
        with Image.open(io.BytesIO(payload)) as opened:
            image = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")).convert(
                "RGB"
            )
        wanted = theirs(56, 4)([[image]], return_tensors="np")["pixel_values"][0]
        differences.append(float(np.abs(load_pixels(payload, pictures) - wanted).max()))
    assert len(differences) == 40
    assert max(differences) < 1e-6


def test_tiles_lie_row_by_row_and_the_whole_comes_last() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]
    image = Image.new("RGB", (96, 64))
    for number, colour in enumerate(colours):
        image.paste(colour, (number % 3 * 32, number // 3 * 32, number % 3 * 32 + 32, number // 3 * 32 + 32))
    squares = load_pixels(png(image), tiled(32, 3))
    middles = [tuple(round(float(v) * 127.5 + 127.5) for v in square[:, 16, 16]) for square in squares]
    assert len(squares) == 7
    assert middles[:6] == colours
    assert len({tuple(map(float, squares[6][:, y, x])) for y in (8, 24) for x in (5, 16, 26)}) == 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_turned_pictures_are_planned_and_cut_upright(orientation: int, form: str) -> None:
    pictures = tiled(32, 2)
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.new("RGB", (200, 90), (9, 99, 200)).save(buffer, form, exif=exif)
    size = picture_size(buffer.getvalue())
    assert size == ((200, 90) if orientation < 5 else (90, 200))
    assert len(load_pixels(buffer.getvalue(), pictures)) == tiling(size, pictures).squares == 3


def test_a_png_that_says_late_which_way_is_up_keeps_its_planned_tiles() -> None:
    image = noise(120, 50)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    data = buffer.getvalue()
    at = data.index(b"eXIf") - 4
    length = int.from_bytes(data[at : at + 4], "big") + 12
    end = data.index(b"IEND") - 4
    late = data[:at] + data[at + length : end] + data[at : at + length] + data[end:]
    pictures = tiled(16, 4)
    assert picture_size(late) == (120, 50)
    squares = load_pixels(late, pictures)
    assert len(squares) == tiling((120, 50), pictures).squares


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_costs_no_tiles() -> None:
    buffer = io.BytesIO()
    noise(60, 40).save(buffer, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff")
    assert picture_size(buffer.getvalue()) == (60, 40)
    assert len(load_pixels(buffer.getvalue(), tiled(16, 2))) == 5


def test_large_jpegs_are_decoded_small() -> None:
    image = noise(40, 25).resize((4000, 2500), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    with Image.open(io.BytesIO(buffer.getvalue())) as opened:
        whole = png(opened)
    pictures = tiled(64, 4)
    small, large = load_pixels(buffer.getvalue(), pictures), load_pixels(whole, pictures)
    assert small.shape == large.shape
    assert np.abs(small - large).mean() < 0.01


def test_what_cannot_be_read_is_planned_as_one_square() -> None:
    assert picture_size(b"<html>") is None
    assert picture_size(b"") is None
    assert tiling(None, tiled(16, 4)).squares == 1


@given(width=st.integers(1, 3000), height=st.integers(1, 3000), max_tiles=st.integers(1, 6))
def test_without_marks_every_square_counts_alike(width: int, height: int, max_tiles: int) -> None:
    pictures = tiled(28, max_tiles, tokens=5)
    assert image_tokens(width, height, pictures) == 5 * tiling((width, height), pictures).squares
    assert tiling((width, height), pictures).squares <= max_tiles**2 + 1


def test_more_pixels_than_idefics3_takes_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"max_tiles = 6 tiles of 1024 px are 6144 px.*try max_tiles = 4\."):
        PictureSettings(size_px=1024, max_tiles=6)
    with pytest.raises(ValidationError, match=r"need an even size_px, got 21; try size_px = 28\."):
        PictureSettings(size_px=21, patch_px=7, max_tiles=2)
    with pytest.raises(ValidationError):
        PictureSettings(max_tiles=7)
