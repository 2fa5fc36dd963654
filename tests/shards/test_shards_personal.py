"""Addresses and numbers are masked, and what only looks a little like one is left."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from carnac.shards.personal import Personal, mask_document, mask_personal


def masked(text: str, *kinds: Personal) -> str:
    return mask_personal(text, kinds or ("email", "phone"), Counter())


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to jane.doe+list@mail.stones.example.", "Write to <email>."),
        ("<mailto:a_b@c-d.co.uk>, or", "<mailto:<email>>, or"),
        ("m\u00fcller@b\u00fccher.example und x@xn--bcher-kva.xn--p1ai", "<email> und <email>"),
        ("a@b.de,c@d.fr;e@f.nl", "<email>,<email>;<email>"),
    ],
)
def test_addresses_are_masked(text: str, wanted: str) -> None:
    assert masked(text) == wanted


@pytest.mark.parametrize(
    "number",
    [
        "+49 30 1234567",
        "+1-202-555-0143",
        "+44 (0)20 7946 0958",
        "0049 30 1234567",
        "(212) 555-0123",
        "212-555-0123",
        "212.555.0123",
        "1-800-555-0199",
        "020 7946 0958",
        "01 42 68 53 00",
        "(030) 123456-0",
        "030/1234567",
    ],
)
def test_numbers_are_masked_wherever_they_stand(number: str) -> None:
    assert masked(f"Call {number}, or come.") == "Call <phone>, or come."
    assert masked(number) == "<phone>"
    assert masked(f"({number})").count("<phone>") == 1
    assert masked(f"Call {number}.", "email") == f"Call {number}."


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Tel.: 12345-678", "Tel.: <phone>"),
        ("phone 555 1234", "phone <phone>"),
        ("T\u00e9l\u00e9phone : 0142685300", "T\u00e9l\u00e9phone : <phone>"),
        ("tel:+33142685300", "tel:<phone>"),
        ("Fax no. 471 22 34", "Fax no. <phone>"),
    ],
)
def test_behind_their_name_numbers_need_no_form(text: str, wanted: str) -> None:
    assert masked(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "@decorated and user@host",
        "logo@2x.png",
        "A@B, x@y..com",
        "between 2019 and 2020",
        "01.02.2024, 2024-01-02 10:30",
        "01.02.2024 10:30",
        "1,234,567 or 3.14159265",
        "192.168.1.1",
        "978-3-16-148410-0 and 0-306-40615-2 and 0317-8471",
        "pages 123-145, v1.2.3, 1080 x 1920",
        "12 34 56 78",
        "100 000 000 inhabitants",
        "$200-300-4000 and $ 200-300-4000",
        "arXiv 2306.16527, doi 10.1000/182",
        "[0.1 0.25 0.75 0.99]",
        "0 1 2 3 4 5 6 7 8 9",
    ],
)
def test_what_is_neither_is_left(text: str) -> None:
    assert masked(text) == text


def test_masking_again_changes_nothing() -> None:
    once = masked("Write to a@b.example or call +49 30 1234567.")
    assert masked(once) == once


def test_a_document_is_masked_where_it_is_kept_and_counted() -> None:
    document = {
        "id": "1",
        "title": "Call 020 7946 0958",
        "texts": ["a@b.example and c@d.example", None, "e@f.example"],
    }
    changed, counts = mask_document(document, [True, True, False], ("email", "phone"))
    assert changed == {"id": "1", "title": "Call <phone>", "texts": ["<email> and <email>", None, "e@f.example"]}
    assert counts == {"email": 2, "phone": 1}
    same, counts = mask_document(document, [True, True, True], ())
    assert same is document
    assert not counts


@pytest.mark.parametrize("piece", ["a", "a.", "1 ", "+1", "a@", "1-", "a@b.", "0 1", "(0", "tel ", "a@b-", "00 "])
def test_time_is_linear_in_the_text(piece: str) -> None:
    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        best = min(_timed(text) for _ in range(3))
        return max(best, 1e-4)

    assert seconds(200_000) <= 60 * seconds(10_000)  # 20 times the text


def _timed(text: str) -> float:
    began = time.process_time()
    masked(text)
    return time.process_time() - began
