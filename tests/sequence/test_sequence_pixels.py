from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from sequence_pages import real_images

from carnac.core.errors import RecordError
from carnac.sequence import pixels as module
from carnac.sequence.pixels import Pixels, grey_pixels, image_tokens, load_pixels
from carnac.sequence.settings import PictureSettings

PICTURES = PictureSettings(size_px=32, patch_px=8)


@pytest.fixture(scope="module", name="real_images")
def fixture_real_images() -> list[bytes]:
    return real_images()


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def square(payload: bytes, settings: PictureSettings) -> Pixels:
    """The one square of a picture without tiles."""
    values = load_pixels(payload, settings)
    assert len(values) == 1
    return np.asarray(values[0])


def colour(payload: bytes) -> list[int]:
    """The colour of the middle, 0 to 255."""
    values = square(payload, PICTURES)[:, 16, 16]
    return [round(float(value * 0.5 + 0.5) * 255) for value in values]


def slope(width: int = 64, height: int = 48) -> Image.Image:
    """Red grows to the right, green downwards: every orientation differs."""
    red = np.tile(np.linspace(0, 255, width), (height, 1))
    green = np.tile(np.linspace(0, 255, height)[:, None], (1, width))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 60)], -1).astype(np.uint8))


def test_a_square_counts_its_patches() -> None:
    assert image_tokens(640, 480, PICTURES) == image_tokens(1, 1, PICTURES) == 16
    assert image_tokens(9, 9, PictureSettings()) == 36


def test_real_pictures_become_normalised_squares(real_images: list[bytes]) -> None:
    assert len(real_images) == 40
    for payload in real_images:
        values = square(payload, PICTURES)
        assert values.shape == (3, 32, 32)
        assert values.dtype == np.float32
        assert values.flags.c_contiguous
        assert -1 <= values.min() <= values.max() <= 1
        assert np.array_equal(values, square(payload, PICTURES))


def test_mean_and_std_are_applied_per_channel() -> None:
    special = PictureSettings(size_px=8, patch_px=8, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 0.25))
    values = square(encoded(Image.new("RGB", (9, 5), (255, 255, 0))), special)
    assert values[:, 4, 4].tolist() == [1.0, 1.0, -4.0]


def test_the_stand_in_is_grey() -> None:
    assert not grey_pixels(PICTURES).any()
    assert grey_pixels(PICTURES).shape == (3, 32, 32)
    assert grey_pixels(PictureSettings(size_px=8, patch_px=8, mean=(0.0, 0.5, 1.0)))[:, 0, 0].tolist() == [1, 0, -1]


def test_transparency_is_laid_on_white() -> None:
    assert colour(encoded(Image.new("RGBA", (20, 20), (255, 0, 0, 0)))) == [255, 255, 255]
    assert colour(encoded(Image.new("RGBA", (20, 20), (255, 0, 0, 128)))) == [255, 127, 127]
    assert colour(encoded(Image.new("LA", (20, 20), (0, 0)))) == [255, 255, 255]


def test_hidden_colours_do_not_bleed_into_edges() -> None:
    image = Image.new("RGBA", (320, 320), (0, 0, 0, 0))
    image.paste((255, 255, 255, 255), (155, 0, 320, 320))
    assert square(encoded(image), PICTURES).min() == 1.0


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    assert colour(encoded(image)) == [10, 200, 30]
    assert colour(encoded(image, "GIF")) == [10, 200, 30]
    assert colour(encoded(image, transparency=1)) == [255, 255, 255]
    assert colour(encoded(image, transparency=bytes([255, 0]))) == [255, 255, 255]


@pytest.mark.parametrize(("mode", "value", "wanted"), [("L", 77, 77), ("1", 1, 255), ("I;16", 77 * 257, 77)])
def test_grey_pictures(mode: str, value: int, wanted: int) -> None:
    assert colour(encoded(Image.new(mode, (20, 20), value))) == [wanted] * 3


def test_pictures_without_a_natural_white_are_stretched() -> None:
    ramp = np.linspace(-3, 9, 64, dtype=np.float32).reshape(8, 8)
    values = square(encoded(Image.fromarray(ramp), "TIFF"), PICTURES)
    assert values.min() < -0.9
    assert values.max() > 0.9
    wide = Image.fromarray(np.asarray([[0, 200_000], [0, 200_000]], dtype=np.int32))
    assert square(encoded(wide, "TIFF"), PICTURES).max() == 1.0
    nothing = Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32))
    assert square(encoded(nothing, "TIFF"), PICTURES).max() == -1.0


def test_cmyk_jpegs_keep_their_colour() -> None:
    red, green, blue = colour(encoded(Image.new("CMYK", (64, 64), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_upright(orientation: int, form: str) -> None:
    image = slope()
    exif = Image.Exif()
    exif[0x0112] = orientation
    payload = encoded(image, form, exif=exif, **({} if form in ("PNG", "TIFF") else {"quality": 95}))
    with Image.open(io.BytesIO(payload)) as stored:
        upright = ImageOps.exif_transpose(stored).convert("RGB")
    wanted = square(encoded(upright), PICTURES)
    assert np.abs(square(payload, PICTURES) - wanted).max() < 0.06
    if orientation != 1:
        assert np.abs(wanted - square(encoded(image), PICTURES)).max() > 0.5


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_costs_nothing() -> None:
    payload = encoded(slope(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\xff\xff")
    assert np.abs(square(payload, PICTURES) - square(encoded(slope()), PICTURES)).max() < 0.1


def test_a_draft_looks_like_the_whole() -> None:
    payload = encoded(slope(1600, 1200), "JPEG", quality=95)
    with Image.open(io.BytesIO(payload)) as whole:
        whole.load()
        wanted = square(encoded(whole), PICTURES)
    assert np.abs(square(payload, PICTURES) - wanted).mean() < 0.01


def test_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")]
    assert colour(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])) == [255, 0, 0]


@pytest.mark.parametrize(
    "payload",
    [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"],
)
def test_what_is_no_picture_is_a_bad_record(payload: bytes) -> None:
    with pytest.raises(RecordError) as caught:
        square(payload, PICTURES)
    assert caught.value.reason == "image_does_not_decode"


def test_huge_pictures_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 63 * 48)
    with pytest.raises(RecordError, match="64 x 48 pixels") as caught:
        square(encoded(slope()), PICTURES)
    assert caught.value.reason == "image_too_large"


@given(cut=st.floats(0, 1), flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4))
@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP"])
def test_damage_gives_pixels_or_a_bad_record(form: str, cut: float, flips: list[tuple[float, int]]) -> None:
    payload = bytearray(encoded(slope(), form))
    for place, flip in flips:
        payload[int(place * len(payload))] ^= flip
    try:
        values = square(bytes(payload[: max(1, round(cut * len(payload)))]), PICTURES)
    except RecordError:
        return
    assert values.shape == (3, 32, 32)
    assert np.isfinite(values).all()


def test_truncated_real_pictures_are_bad_records(real_images: list[bytes]) -> None:
    for payload in real_images[:10]:
        with pytest.raises(RecordError):
            square(payload[: len(payload) // 2], PICTURES)
