"""The perceptual hash: what imagehash computes, what copies share, and what different pictures do not."""

from __future__ import annotations

import functools
import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from images_samples import encoded, exif_notes, save, small_picture, warc_images
from PIL import Image

from carnac.images.inspect import take_image
from carnac.images.phash import perceptual_hash
from carnac.images.settings import ImageSettings
from carnac.sequence.pixels import opaque

FLAT = 1 << 63
# Computed by imagehash 4.3.2.
SMALL_PICTURE, SAMPLE_PICTURE = 0xBF828233CC8D8D37, 0x8774AF8AD0697893
FEW_BITS = 6  # of 64; two of a thousand pairs of different pictures of the sample are as near


def hash_of(payload: bytes) -> int:
    facts = take_image(payload, ImageSettings()).facts
    assert facts.phash is not None
    return facts.phash


def distance(first: int, second: int) -> int:
    return (first ^ second).bit_count()


def hash_of_imagehash(picture: Image.Image) -> int:
    """What imagehash 4.3's `phash` computes, with scipy's unscaled DCT-II of both axes written out."""
    pixels = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.LANCZOS), dtype=np.float64)
    samples = np.arange(32)
    cosines = 2 * np.cos(np.pi * samples[:, None] * (2 * samples + 1) / 64)
    low = (cosines @ pixels @ cosines.T)[:8, :8]
    return int("".join("01"[bool(bit)] for bit in (low > np.median(low)).ravel()), 2)


@functools.cache
def pictures() -> list[Image.Image]:
    """The sample's pictures as they are shown."""
    return [opaque(Image.open(io.BytesIO(payload))) for payload in warc_images().values()]


def test_values_compare_with_those_of_imagehash() -> None:
    distances = [
        distance(hash_of(payload), hash_of_imagehash(picture))
        for payload, picture in zip(warc_images().values(), pictures(), strict=True)
    ]
    assert np.mean(distances) <= 1.5
    assert max(distances) <= FEW_BITS


def test_known_values_stay_as_tables_on_disk_hold_them() -> None:
    assert perceptual_hash(small_picture()) == hash_of_imagehash(small_picture()) == SMALL_PICTURE
    for kind in ("png", "jpeg", "jpeg progressive", "webp lossless"):
        assert distance(hash_of(encoded()[kind]), SAMPLE_PICTURE) <= 2


def scaled(picture: Image.Image, factor: float) -> Image.Image:
    return picture.resize((round(picture.width * factor), round(picture.height * factor)))


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "quality 50": lambda picture: save(picture, "JPEG", quality=50),
    "half": lambda picture: save(scaled(picture, 0.5), "JPEG", quality=88),
    "double": lambda picture: save(scaled(picture, 2), "JPEG", quality=88),
    "webp": lambda picture: save(picture, "WEBP", method=0),
    "gif": lambda picture: save(picture.quantize(256), "GIF"),
}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_are_a_few_bits_apart(copy: str) -> None:
    distances = [
        distance(hash_of(COPIES[copy](picture)), hash_of(save(picture, "PNG", compress_level=1)))
        for picture in pictures()[::4]
    ]
    assert np.mean(distances) <= 2
    assert np.mean([apart <= FEW_BITS for apart in distances]) >= 0.95


def test_different_pictures_are_far_apart() -> None:
    hashes = [perceptual_hash(picture) for picture in pictures()]
    distances = [distance(*pair) for pair in itertools.combinations(hashes, 2)]
    assert np.mean([apart <= FEW_BITS for apart in distances]) <= 0.002
    assert np.median(distances) >= 28


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (31, 33), (1, 4000), (1000, 1000)])
def test_pictures_of_one_colour_share_one_hash(mode: str, size: tuple[int, int]) -> None:
    assert perceptual_hash(Image.new(mode, size, 1)) in (FLAT, 0)
    white = Image.new("RGB", size, "white").convert(mode if mode != "I;16" else "L")
    assert perceptual_hash(white) == FLAT


def test_hidden_colours_do_not_count() -> None:
    """Black with a shape in its transparency alone: without it, all such signs would be one picture."""
    shape = small_picture().convert("L")
    sign = Image.merge("LA", (Image.new("L", shape.size), shape))
    shown = Image.eval(shape, lambda grey: 255 - grey)
    assert distance(perceptual_hash(sign), perceptual_hash(shown)) <= 2
    for colours in ("black", "red"):
        hidden = Image.new("RGBA", shape.size, colours)
        hidden.putalpha(0)
        assert perceptual_hash(hidden) == FLAT


def test_sixteen_bits_of_grey_have_the_hash_of_eight() -> None:
    grey = small_picture().convert("L")
    deep = grey.convert("I").point(lambda level: level * 257).convert("I;16")
    assert perceptual_hash(deep) == perceptual_hash(grey)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_hash_is_that_of_the_picture_as_it_is_shown(orientation: int) -> None:
    """Whatever the maker's camera lay on: the lying pixels and their note, and the upright ones, share a hash."""
    upright = small_picture().resize((480, 360))
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    lying = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    noted = save(lying, "JPEG", quality=95, exif=exif_notes(orientation))
    assert distance(hash_of(noted), hash_of(save(upright, "JPEG", quality=95))) <= 2
