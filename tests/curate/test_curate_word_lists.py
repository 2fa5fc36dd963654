from __future__ import annotations

from pathlib import Path

import pytest
from curate_plain import COMMON

from carnac.core.errors import InputError
from carnac.curate.signals.settings import MeasureSettings
from carnac.curate.texts.lexicon import Lexicon, load_lexicon, read_common_words, table_of_language
from carnac.curate.texts.split import split_words
from carnac.curate.texts.word_lists import REQUIRED_WORDS, Kind, languages_with, read_words

KINDS: tuple[Kind, ...] = ("stop", "flagged", "spam")
FILES = Path(__file__).parents[2] / "src/carnac/curate/texts/word_lists"


@pytest.mark.parametrize("kind", KINDS)
def test_every_list_holds_words_as_the_splitter_yields_them_each_once(kind: Kind) -> None:
    assert {"en", "de", "fr", "es", "it", "pt", "nl"} <= set(languages_with(kind))
    for language in languages_with(kind):
        words = read_words(kind, language)
        assert len(words) >= 30
        assert len(set(words)) == len(words), language
        assert [word for word in words if split_words(word) != [word]] == [], language


def test_every_list_names_its_source_in_its_first_line() -> None:
    files = sorted(FILES.glob("*/*.txt"))
    assert len(files) == sum(len(languages_with(kind)) for kind in KINDS)
    for file in files:
        first = file.read_text("utf-8").splitlines()[0]
        assert first.startswith("#"), file
        assert any(source in first for source in ("Snowball", "Our own", "OBELICS")), file


def test_stop_words_are_function_words() -> None:
    english = set(read_words("stop", "en"))
    assert len(english) > 250
    assert {"the", "and", "it's", "don't", *REQUIRED_WORDS} <= english
    assert not {"stone", "home", "click", "image"} & english
    assert {"und", "der", "nicht"} <= set(read_words("stop", "de"))


def test_spam_words_of_english_are_the_forty_of_obelics() -> None:
    assert len(read_words("spam", "en")) == 40
    assert {"newletter", "sign-up", "cookies", "clickbait"} & set(read_words("spam", "en")) == {
        "newletter",
        "sign-up",
        "cookies",
    }


def test_a_language_without_a_list_has_that_of_the_settings() -> None:
    finnish = table_of_language("fi", "en")  # stop words of its own, no spam words
    spam = len(read_words("spam", "en"))
    assert int((finnish.bits & 4 != 0).sum()) == spam
    assert int((finnish.bits & 1 != 0).sum()) == len(read_words("stop", "fi"))
    assert Lexicon(language="de").words_of("xx") is table_of_language("xx", "de")


def test_common_words_come_from_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "common_words.txt"
    path.write_text("\n".join(word.upper() for word in COMMON) + "\n\n")
    lexicon = load_lexicon(MeasureSettings(common_words=path))
    assert lexicon.common is not None
    assert int((lexicon.common.keys != 0).sum()) == len(COMMON)
    assert lexicon.model is None


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"", "no word in it"), (b"\xff\xfe\xfa", "UTF-8")]
)
def test_a_file_of_common_words_that_cannot_be_used_is_told_in_a_sentence(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    path = tmp_path / "words.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=why) as caught:
        read_common_words(path)
    assert str(path) in str(caught.value)
    assert "a line" in str(caught.value)


def test_a_language_without_stop_words_is_refused_with_those_that_have_some() -> None:
    with pytest.raises(ValueError, match="no list of stop words for 'xx': known are da, de, en"):
        MeasureSettings(language="xx")
