from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carnac.serve.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, caf\u00e9, \u6c34, \U0001f600", "plain, caf\u00e9, \u6c34, \U0001f600"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("\x1b[31mred\x1b]0;title\x07", "\ufffd[31mred\ufffd]0;title\ufffd"),
        ("\x9b2J", "\ufffd2J"),  # the one-character form of ESC [
        ("good\rbad", "goodbad"),
        ("a\r\nb", "a\nb"),
        ("back\x08space\x7f", "back\ufffdspace\ufffd"),
        ("user\u202etxt.exe\u2066x\u2069", "user\ufffdtxt.exe\ufffdx\ufffd"),
        ("family \U0001f469\u200d\U0001f467", "family \U0001f469\u200d\U0001f467"),  # joined by a format character
        ("", ""),
    ],
)
def test_what_steers_a_terminal_is_replaced(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_no_control_is_left_and_the_rest_stays(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(character) != "Cc" or character in "\t\n" for character in shown)
    assert printable(shown) == shown
    if all(character.isprintable() for character in text):
        assert shown == text
