"""Notes leave a file, pixels stay: all that a maker writes beside a picture, in all formats, sound and damaged."""

from __future__ import annotations

import hashlib
import io
import re
from typing import Any

import numpy as np
import pytest
from images_mutations import seeds
from images_samples import (
    PROFILE,
    SECRET,
    encoded,
    exif_notes,
    noted,
    png_chunk,
    save,
    small_picture,
    warc_images,
    xmp_notes,
)
from PIL import Image, ImageSequence

from carnac.core.errors import RecordError
from carnac.images.inspect import TakenImage, take_image
from carnac.images.settings import MEDIA_TYPES, ImageSettings, MediaType, Store

TRACES = re.compile(rb"Maker|Exif|xmp|XMP|Photoshop|tEXt|zTXt|iTXt|eXIf|tIME|pHYs|prVt|priv|MPF\0")


def taken(payload: bytes, **settings: Any) -> TakenImage:
    return take_image(payload, ImageSettings(**settings))


def frames(payload: bytes) -> list[bytes]:
    """The pixels of every frame, with their transparency."""
    with Image.open(io.BytesIO(payload)) as image:
        return [frame.convert("RGBA").tobytes() for frame in ImageSequence.Iterator(image)]


def first_frame(payload: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(payload)) as image:
        return np.asarray(image.convert("RGBA"), dtype=np.int16)


def media_type(kind: str) -> MediaType:
    return next(name for name in MEDIA_TYPES if name == f"image/{kind.split(maxsplit=1)[0]}")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif"])
def test_every_note_is_gone_and_every_pixel_is_there(kind: str) -> None:
    payload = noted()[kind]
    assert payload.count(SECRET) >= 3
    clean = taken(payload)
    assert not TRACES.search(clean.payload)
    assert frames(clean.payload) == frames(payload)
    assert clean.facts.received_sha256 == hashlib.sha256(payload).hexdigest()
    assert clean.facts.sha256 == hashlib.sha256(clean.payload).hexdigest()
    again = taken(clean.payload)
    assert again.payload is clean.payload


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_the_colour_profile_stays(kind: str) -> None:
    for payload in (noted()[kind], save(small_picture(), kind.upper(), exif=exif_notes(6), icc_profile=PROFILE)):
        with Image.open(io.BytesIO(taken(payload).payload)) as image:
            assert image.info["icc_profile"] == PROFILE


def test_what_tells_the_colours_of_a_png_stays() -> None:
    with Image.open(io.BytesIO(taken(noted()["png"]).payload)) as image:
        assert image.info["gamma"] == 0.45455
        assert "dpi" not in image.info


def test_a_jpeg_keeps_what_its_colours_are_told_by() -> None:
    for kind in ("jpeg cmyk", "jpeg rgb"):
        payload = seeds()[kind]
        clean = taken(payload[:2] + b"\xff\xfe\x00\x1e" + SECRET + payload[2:]).payload
        assert SECRET not in clean
        assert b"Adobe" in clean
        assert frames(clean) == frames(payload)


@pytest.mark.parametrize("kind", [kind for kind in seeds() if kind.split()[0] in ("jpeg", "png", "webp", "gif")])
def test_files_of_all_encodings_keep_all_their_frames(kind: str) -> None:
    """Also with notes before their pixels."""
    payload = seeds()[kind].removesuffix(SECRET)
    note = {
        "jpeg": (2, b"\xff\xfe\x00\x1e" + SECRET),
        "png": (33, png_chunk(b"tEXt", b"Author\0" + SECRET)),
        "gif": (payload.find(b"!\xf9"), b"!\xfe\x1c" + SECRET + b"\0"),
        "webp": (len(payload), b"XMP \x1c\0\0\0" + SECRET),
    }
    at, words = note[kind.split(maxsplit=1)[0]]
    told = payload[:at] + words + payload[at:]
    if kind.startswith("webp"):
        told = told[:4] + (len(told) - 8).to_bytes(4, "little") + told[8:]
    for whole in (payload, told):
        clean = taken(whole).payload
        assert frames(clean) == frames(payload)
        assert SECRET not in clean


def test_the_pictures_of_the_sample_lose_their_notes_and_no_pixel() -> None:
    lost = 0
    for payload in list(warc_images().values())[::4]:
        clean = taken(payload).payload
        lost += b"Software" in payload
        assert b"Software" not in clean
        assert frames(clean) == frames(payload)
    assert lost


def test_second_pictures_and_what_follows_the_end_go() -> None:
    several = encoded()["jpeg several"]
    clean = taken(several + SECRET).payload
    assert clean.endswith(b"\xff\xd9")
    assert len(clean) < len(several) / 2
    assert np.array_equal(first_frame(clean), first_frame(several))
    for kind in ("png", "webp", "gif"):
        assert taken(encoded()[kind] + SECRET).payload == taken(encoded()[kind]).payload


def test_notes_between_the_scans_of_a_jpeg_go() -> None:
    payload = encoded()["jpeg progressive"]
    note = b"\xff\xe1" + (2 + len(SECRET)).to_bytes(2, "big") + SECRET
    told, marker = payload, payload.rindex(b"\xff\xda")
    told = payload[:marker] + note + b"\xff" + payload[marker:-2] + note + payload[-2:]
    assert taken(told).payload.replace(b"\xff\xff", b"\xff") == payload
    assert frames(taken(told).payload) == frames(payload)


@pytest.mark.parametrize("kind", ["png", "gif", "gif moving"])
def test_a_cut_file_that_has_all_its_pixels_keeps_them(kind: str) -> None:
    payload, accepted = encoded()[kind], 0
    for end in range(len(payload) - 1, len(payload) - 20, -1):
        try:
            clean = taken(payload[:end]).payload
        except RecordError:
            continue
        accepted += 1
        assert np.array_equal(first_frame(clean), first_frame(payload))
        if kind == "png":  # ended properly
            assert clean.endswith(b"IEND\xaeB`\x82")
            with Image.open(io.BytesIO(clean)) as image:
                image.verify()
    assert accepted


@pytest.mark.parametrize(
    "kind", ["jpeg", "jpeg grey", "jpeg cmyk", "jpeg progressive", "png", "png palette", "png deep"]
)
@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_lying_picture_is_stored_upright_without_its_orientation(kind: str, orientation: int) -> None:
    lying = Image.open(io.BytesIO(seeds()[kind]))
    payload = save(
        lying,
        kind.split(maxsplit=1)[0].upper(),
        **({"quality": "keep"} if "jpeg" in kind else {}),
        exif=exif_notes(orientation),
    )
    clean = taken(payload)
    with Image.open(io.BytesIO(clean.payload)) as image:
        assert 0x0112 not in image.getexif()
        assert image.size == (clean.facts.width, clean.facts.height)
        assert image.mode == lying.mode
    assert clean.facts.media_type == media_type(kind)
    assert not TRACES.search(clean.payload)
    wanted = upright(payload)
    apart = np.abs(first_frame(clean.payload) - wanted)
    assert apart.max() == 0 if kind.startswith("png") else apart.mean() < 2


def upright(payload: bytes) -> np.ndarray:
    """The first frame as a viewer shows it; the turns of EXIF 2.32, chapter 4.6.4, written out."""
    with Image.open(io.BytesIO(payload)) as image:
        orientation = image.getexif().get(0x0112, 1)
    lying = first_frame(payload)
    return {
        1: lying,
        2: lying[:, ::-1],
        3: lying[::-1, ::-1],
        4: lying[::-1],
        5: lying.swapaxes(0, 1),
        6: lying[::-1].swapaxes(0, 1),
        7: lying[::-1, ::-1].swapaxes(0, 1),
        8: lying[:, ::-1].swapaxes(0, 1),
    }[orientation]


@pytest.mark.parametrize("lossless", [True, False])
def test_a_lying_webp_stays_as_lossless_as_it_was(lossless: bool) -> None:
    clear = small_picture().convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    payload = save(clear, "WEBP", lossless=lossless, exact=True, quality=95, exif=exif_notes(6), icc_profile=PROFILE)
    clean = taken(payload).payload
    apart = np.abs(first_frame(clean) - upright(payload))
    assert (b"VP8L" in clean) is lossless
    assert apart.max() == 0 if lossless else apart.mean() < 3
    assert not TRACES.search(clean)


def test_exif_behind_the_pixels_of_a_png_turns_it_too() -> None:
    payload = save(small_picture(), "PNG", exif=exif_notes(6))
    start = payload.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(payload[start : start + 4], "big")
    behind = payload[:start] + payload[end:-12] + payload[start:end] + payload[-12:]
    clean = taken(behind)
    assert (clean.facts.width, clean.facts.height) == (72, 96)
    assert np.array_equal(first_frame(clean.payload), upright(payload))


def test_original_keeps_every_byte() -> None:
    for payload in (*noted().values(), save(small_picture(), "JPEG", exif=exif_notes(6))):
        assert taken(payload, store="original").payload is payload


@pytest.mark.parametrize("kind", [*seeds()][:17])
@pytest.mark.parametrize("max_side_px", [None, 40, 4000])
def test_reencoded_makes_one_jpeg_of_everything(kind: str, max_side_px: int | None) -> None:
    payload = seeds()[kind]
    new = taken(payload, store="reencoded", max_side_px=max_side_px, quality=92)
    with Image.open(io.BytesIO(new.payload)) as image:
        assert image.format == "JPEG"
        assert image.size == (new.facts.width, new.facts.height) == ((40, 30) if max_side_px == 40 else (96, 72))
        assert image.mode == ("L" if kind in ("jpeg grey",) else "RGB")
        shown = np.asarray(image.convert("RGB"), dtype=np.int16)
    assert new.facts.media_type == "image/jpeg"
    assert new.facts.sha256 == hashlib.sha256(new.payload).hexdigest() != new.facts.received_sha256
    assert not TRACES.search(new.payload)
    with Image.open(io.BytesIO(payload)) as source:
        layer = (
            source.convert("RGBA") if kind != "png deep" else Image.fromarray(np.asarray(source) // 257).convert("RGBA")
        )
    wanted = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB").resize(image.size)
    assert np.abs(shown - np.asarray(wanted, dtype=np.int16)).mean() < 12
    assert taken(payload).facts.phash is not None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reencoded_is_upright(orientation: int) -> None:
    payload = save(small_picture().resize((960, 720)), "JPEG", exif=exif_notes(orientation))
    new = taken(payload, store="reencoded", max_side_px=96)
    wanted = np.asarray(Image.fromarray(upright(payload).astype(np.uint8)).resize((new.facts.width, new.facts.height)))
    assert max(new.facts.width, new.facts.height) == 96
    assert np.abs(first_frame(new.payload) - wanted).mean() < 4


def test_reencoded_keeps_a_profile_only_with_its_colours() -> None:
    profiles = {"RGB": PROFILE, "CMYK": PROFILE[:16] + b"CMYK" + PROFILE[20:]}
    for mode, profile in profiles.items():
        payload = save(small_picture().convert(mode), "JPEG", icc_profile=profile)
        with Image.open(io.BytesIO(taken(payload, store="reencoded").payload)) as image:
            assert image.info.get("icc_profile") == (PROFILE if mode == "RGB" else None)


@pytest.mark.parametrize("store", ["original", "clean", "reencoded"])
def test_the_same_file_gives_the_same_bytes_and_facts(store: Store) -> None:
    for payload in noted().values():
        assert taken(payload, store=store) == taken(bytes(bytearray(payload)), store=store)


def test_a_comment_of_the_size_of_a_file_is_no_work() -> None:
    notes = b"".join(b"\xff\xfe\xff\xff" + bytes(65_533) for _ in range(200))
    payload = encoded()["jpeg"]
    assert taken(payload[:2] + notes + xmp_segment() + payload[2:]).payload == payload


def xmp_segment() -> bytes:
    body = b"http://ns.adobe.com/xap/1.0/\0" + xmp_notes()
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
