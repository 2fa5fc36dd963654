from __future__ import annotations

import re

import curate_signals_table as docs

from carnac.curate.signals.catalogue import CATALOGUE
from carnac.curate.signals.settings import MeasureSettings
from carnac.curate.texts.word_lists import languages_with


def test_the_table_of_signals_in_the_docs_is_that_of_the_catalogue() -> None:
    _, table, _ = docs.parted(docs.PAGE.read_text("utf-8"))
    assert table == docs.signals_table(), "python tests/curate/curate_signals_table.py writes it anew"
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == {signal.name for signal in CATALOGUE}


def test_every_setting_of_measuring_stands_in_the_docs() -> None:
    page = docs.PAGE.read_text("utf-8")
    for name, field in MeasureSettings.model_fields.items():
        assert f"| `{name}` |" in page
        assert field.description


def test_the_languages_of_the_lists_stand_in_the_docs() -> None:
    page = docs.PAGE.read_text("utf-8")
    for kind in ("stop", "flagged", "spam"):
        assert f"| {kind} | {' '.join(languages_with(kind))} |" in page
