"""Names of places: paths, URLs of files, URLs of stores."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from carnac.core.places import absolute, below, is_local, library_of, open_binary, place_of, read_bytes
from carnac.recipe.settings import Recipe


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("out/tiny", "out/tiny"),
        ("../out", "../out"),
        ("/abs/a b", "/abs/a b"),
        ("odd::name", "odd::name"),
        ("C:/x", "C:/x"),
        ("file:///abs/a%20b", "/abs/a b"),
        ("FILE://localhost/abs", "/abs"),
    ],
)
def test_paths(text: str, path: str) -> None:
    assert place_of(text) == Path(path)
    assert is_local(place_of(text))
    assert library_of(place_of(text)) is None


@pytest.mark.parametrize("text", ["s3://bucket/a b/\u00e9", "s3a://bucket/a b/\u00e9", "S3://bucket/a b/\u00e9/"])
def test_a_folder_of_a_store_has_one_name(text: str) -> None:
    place = place_of(text)
    assert not is_local(place)
    assert str(place) == absolute(place) == "s3://bucket/a b/\u00e9"
    assert place == place_of("s3://bucket/a b/\u00e9")
    assert pickle.loads(pickle.dumps(place / "x.parquet")) == place / "x.parquet"  # noqa: S301 -- to a worker
    assert below(place / "packs" / "x.tar", place) == "packs/x.tar"
    assert below(place, place) == "."
    assert library_of(place) == "s3fs"


def test_a_bucket_alone_is_a_place() -> None:
    assert str(place_of("s3://bucket/") / "x").replace("//x", "/x") == "s3://bucket/x"
    assert below(place_of("s3://bucket") / "x", place_of("s3://bucket")) == "x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory://out", "no store is known by memory://"),
        ("https://host/x", "no store is known by https://"),
        ("s3://", "wanted s3://BUCKET/NAME"),
        ("s3:///key", "wanted s3://BUCKET/NAME"),
        ("s3://bucket/a//b", "without empty parts"),
        ("s3://bucket/a/../b", "without empty parts"),
        ("file://host/x", "wanted file:///absolute/path"),
        ("file://x", "wanted file:///absolute/path"),
    ],
)
def test_what_names_no_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        place_of(text)


def test_settings_read_and_write_places() -> None:
    from carnac.jobs.crawl import CrawlRecipe

    fields = {"job": "crawl", "warcs": ["x"], "output": "s3a://bucket/out"}
    recipe = CrawlRecipe.model_validate_json(json.dumps(fields))
    assert isinstance(recipe, Recipe)
    assert recipe.model_dump(mode="json")["output"] == "s3://bucket/out"
    assert [str(folder) for _, _, folder in recipe.folders_written()] == ["s3://bucket/out"]


def test_bytes_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_bytes(b"0123456789")
    assert read_bytes(file) == b"0123456789"
    assert read_bytes(file, 2, 5) == b"234"
    assert read_bytes(file, -3) == b"789"
    assert read_bytes(file, 8, 20) == b"89"
    with open_binary(file) as stream:
        assert stream.read() == b"0123456789"
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "gone")
