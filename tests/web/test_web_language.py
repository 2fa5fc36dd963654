"""Language of a text, offline."""

from __future__ import annotations

import subprocess
import sys

import pytest

from carnac.web.language import identify

ENGLISH = "Home\nProducts\nAbout us\nContact\nImprint and privacy policy of this web site, all rights reserved\n"
GERMAN = "Die Katze sitzt auf dem Dach und schaut den Leuten zu, die am fruehen Morgen zum Markt gehen. " * 10


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The cat sits on the roof and looks at the people below.", "en"),
        (GERMAN, "de"),
        ("Le chat est assis sur le toit\net regarde les gens qui passent dans la rue.", "fr"),
        ("\u732b\u304c\u5c4b\u6839\u306e\u4e0a\u306b\u5ea7\u3063\u3066\u3044\u307e\u3059\u3002", "ja"),
    ],
)
def test_languages(text: str, language: str) -> None:
    found, score = identify(text, 2000)
    assert found == language
    assert score is not None
    assert 0.5 < score <= 1


def test_text_is_not_cut_at_80_characters() -> None:
    assert identify(ENGLISH + GERMAN, 2000)[0] == "de"
    assert identify(ENGLISH + GERMAN, len(ENGLISH))[0] == "en"


def test_no_text_has_no_language() -> None:
    assert identify("", 2000) == (None, None)
    assert identify(" \n\t", 2000) == (None, None)


def test_no_socket_is_opened() -> None:
    script = (
        "import socket, sys\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith('socket.'): raise RuntimeError(event)\n"
        "sys.addaudithook(refuse)\n"
        "from carnac.web.language import identify\n"
        "print(identify('Die Katze sitzt auf dem Dach.', 100)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "de", done.stderr
