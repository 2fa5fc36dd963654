from __future__ import annotations

import io
import itertools
import json
from typing import Any

import pytest

from carnac.core.errors import RecordError
from carnac.core.seeds import generator
from carnac.shards import json_records
from carnac.shards.json_records import form_of, parsed, raw_records, slices_of

VALUES: list[Any] = [
    {"id": number, "text": 'caf\u00e9 "[,]{}" \\ \u2028 \U0001f600' * (number % 5), "list": [[], {}, number]}
    for number in range(40)
]


def written(form: str, values: list[Any] = VALUES) -> bytes:
    """Return values as lines with blanks between, or as an array in an untidy hand."""
    texts = [json.dumps(value, ensure_ascii=number % 2 == 0) for number, value in enumerate(values)]
    if form == "lines":
        return "\n".join([*texts, "", "  ", ""]).encode()
    return (" \n[\n " + " ,\n".join(texts) + "\n]\n").encode()


def records(payload: bytes) -> list[Any]:
    stream = io.BytesIO(payload)
    form, start = form_of(stream)
    return [parsed(raw) for raw in raw_records(stream, form, start)]


@pytest.mark.parametrize("form", ["lines", "array"])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
def test_records_are_those_of_the_file_in_chunks_of_any_size(
    form: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_records, "CHUNK_BYTES", chunk)
    payload = written(form)
    assert records(payload if chunk > 3 else payload.lstrip()) == VALUES
    assert records(b"\xef\xbb\xbf" + payload) == VALUES if chunk > 3 else True


@pytest.mark.parametrize("form", ["lines", "array"])
def test_slices_read_again_from_their_first_byte_are_the_whole_file(form: str) -> None:
    payload = written(form)
    stream = io.BytesIO(payload)
    for size in (1, 3, 7, 40, 1000):
        pieces = list(slices_of(stream, size))
        assert [piece.first for piece in pieces] == list(range(0, 40, size))
        found = []
        for piece in pieces:
            raws = raw_records(stream, form_of(stream)[0], piece.start)
            taken = [next(raws) for _ in range(piece.number)]
            assert (taken[0].start, taken[-1].stop) == (piece.start, piece.stop)
            found += [parsed(raw) for raw in taken]
        assert found == VALUES


@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_limit_ends_the_last_slice(form: str) -> None:
    stream = io.BytesIO(written(form))
    assert [piece.number for piece in slices_of(stream, 10, limit=25)] == [10, 10, 5]
    assert [piece.number for piece in slices_of(stream, 10, limit=20)] == [10, 10]
    assert sum(piece.number for piece in slices_of(stream, 10, limit=1000)) == 40


def test_empty_files_have_no_record() -> None:
    assert [records(payload) for payload in (b"", b"\n \n", b"[]", b" [ ] ", b"[", b"\xef\xbb\xbf")] == [[]] * 6


def test_a_bad_line_costs_itself() -> None:
    stream = io.BytesIO(b'{"a": 1}\n{"a": \n\xff\xfe\n' + b"[" * 100_000 + b'\n{"a": 2}')
    raws = list(raw_records(stream, *form_of(stream)))
    assert (parsed(raws[0]), parsed(raws[-1])) == ({"a": 1}, {"a": 2})
    assert len(raws) == 5
    for raw in raws[1:4]:
        with pytest.raises(RecordError, match="from byte") as caught:
            parsed(raw)
        assert caught.value.reason == "bad_json"


@pytest.mark.parametrize("tail", [b'{"a": ', b'{"a" 1}, {"a": 3}]', b"nonsense, 7]", b'"open'])
def test_damage_in_an_array_costs_the_rest_of_it(tail: bytes) -> None:
    stream = io.BytesIO(b'[{"a": 1}, {"a": 2},' + tail)
    raws = list(raw_records(stream, *form_of(stream)))
    assert [parsed(raw) for raw in raws[:2]] == [{"a": 1}, {"a": 2}]
    assert len(raws) == 3
    with pytest.raises(RecordError, match="from byte 20 on"):
        parsed(raws[2])


@pytest.mark.parametrize("form", ["lines", "array"])
def test_a_record_that_is_too_large_is_not_read(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_records, "MAX_RECORD_BYTES", 2000)
    monkeypatch.setattr(json_records, "CHUNK_BYTES", 100)
    values = [{"a": 1}, {"a": "x" * 5000}, {"a": 2}]
    stream = io.BytesIO(written(form, values))
    raws = list(raw_records(stream, *form_of(stream)))
    with pytest.raises(RecordError) as caught:
        parsed(raws[1])
    if form == "lines":
        assert caught.value.reason == "too_large"
        assert parsed(raws[2]) == {"a": 2}
        assert raws[1].payload is None
    else:  # where the next one begins cannot be told
        assert caught.value.reason == "bad_json"
        assert len(raws) == 2


def test_any_bytes_give_records_or_none_and_end() -> None:
    random = generator(7, "bytes")
    letters = b'[]{}",: \\\n01et\xff\xc3\xa9'
    for _ in range(2000):
        payload = bytes(random.choice(list(letters), int(random.integers(0, 30))).tolist())
        stream = io.BytesIO(payload)
        raws = list(raw_records(stream, *form_of(stream)))
        assert all(raw.payload is not None and payload[raw.start : raw.stop] == raw.payload for raw in raws)
        assert all(one.stop <= two.start for one, two in itertools.pairwise(raws))
