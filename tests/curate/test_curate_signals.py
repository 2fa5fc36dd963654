from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from curate_pages import page, sample_pages
from curate_plain import LEXICON

from carnac.core.errors import InputError
from carnac.curate.signals.catalogue import CATALOGUE, COLUMNS, signals_on
from carnac.curate.signals.frame import Frame
from carnac.curate.signals.measure import (
    SIGNALS,
    failed_row,
    measure,
    measure_document,
    measure_texts_again,
    not_measured,
    signals_table,
)
from carnac.curate.signals.of_texts import REMEASURED, TEXT_COLUMNS, TEXT_SIGNALS
from carnac.curate.signals.settings import MeasureSettings
from carnac.curate.texts.lexicon import Lexicon, load_lexicon

PAGE = page(
    ("heading", "The stones"),
    "They stand in lines, and no one knows why!",
    ("image", "http://stones.example/kept.png"),
    ("image", "http://stones.example/other.png#top"),
)


def test_a_row_holds_a_number_per_block() -> None:
    row = measure_document(PAGE)
    assert list(row) == SIGNALS.names
    assert row["id"] == PAGE.id
    assert row["failed"] is None
    assert row["num_characters"] == 10 + 42
    assert row["block_kind"] == [1, 0, 7, 7]
    assert row["block_num_words"] == [2, 9, None, None]
    assert row["block_num_characters"] == [10, 42, None, None]
    assert row["block_num_special_characters"] == [1, 10, None, None]
    assert row["block_num_stop_words"] == [1, 6, None, None]  # the; they in and no one why
    assert row["block_num_sentences"] == [1, 1, None, None]
    assert row["block_num_punctuation"] == [0, 2, None, None]
    assert row["block_required_words"] == [1, 1 << 4, None, None]  # the; and
    assert row["block_character_repetition"] == [0.0, 0.0, None, None]


def test_what_needs_a_list_or_a_model_is_null_without_one() -> None:
    without, with_common = measure_document(PAGE), measure_document(PAGE, LEXICON)
    assert without["block_num_common_words"] == without["block_log10_probability"] == [None] * 4
    assert with_common["block_num_common_words"] == [2, 1, None, None]  # the stones; and


def test_repetition_of_a_document_sees_across_its_blocks() -> None:
    row = measure_document(page("Accept all cookies now please", "Accept all cookies now please"))
    assert row["word_repetition"] == pytest.approx(2 / 6)
    assert row["block_word_repetition"] == [0.0, 0.0]
    assert row["duplicate_paragraph_ratio"] == 0.5


def test_pages_of_one_text_share_a_digest_and_pages_without_text_have_none() -> None:
    cut = measure_document(page("one two", "three"))
    whole = measure_document(page("One two three", ("image", "http://a.example/i.png"), url="http://b.example/"))
    pictures = measure_document(page(("image", "http://a.example/i.png")))
    assert cut["text_digest"] == whole["text_digest"] is not None
    assert cut["url_digest"] != whole["url_digest"]
    assert pictures["text_digest"] is None
    assert pictures["url_digest"] is not None


def test_blocks_have_digests_by_which_equal_ones_meet() -> None:
    row = measure_document(
        page("One  two", "one two", " ", ("image", "http://a.example/i.png#a"), ("image", "http://a.example/i.png"))
    )
    first, second, blank, *images = row["block_text_digest"]
    assert first == second is not None
    assert blank is None
    assert images == [None, None]
    assert row["block_image_digest"][:3] == [None] * 3
    assert row["block_image_digest"][3] == row["block_image_digest"][4] is not None


def test_a_page_without_blocks_is_measured() -> None:
    row = measure_document(page())
    assert row["num_characters"] == 0
    assert row["block_num_words"] == []
    assert row["unique_word_ratio"] == 0.0


def test_a_failed_row_is_nulls_with_lists_as_long_as_the_blocks() -> None:
    row = failed_row(PAGE, "too_deep: 10,000 levels")
    assert list(row) == SIGNALS.names
    assert (row["id"], row["failed"]) == (PAGE.id, "too_deep: 10,000 levels")
    assert row["text_digest"] is None
    assert row["character_repetition"] is None
    assert row["block_kind"] == [1, 0, 7, 7]
    assert row["block_num_words"] == row["block_image_digest"] == [None] * 4


def test_where_rows_are_cut_into_tables_changes_nothing() -> None:
    documents = [*sample_pages()[0], PAGE, page()]
    measured = [measure(document, LEXICON) for document in documents]
    measured[3] = not_measured(documents[3], "not_measured")
    whole = signals_table(measured)
    assert whole.schema == SIGNALS
    assert pa.concat_tables([signals_table([each]) for each in measured]).equals(whole)
    assert pa.concat_tables([signals_table(measured[:5]), signals_table(measured[5:])]).equals(whole)
    assert signals_table([]).num_rows == 0


def test_texts_measured_again_have_the_columns_of_a_page_of_nothing_else() -> None:
    document = sample_pages()[0][0]
    texts = [text for text in document.texts if text is not None]
    row = measure_document(document)
    assert measure_texts_again(texts) == {name: row[name] for name in REMEASURED}
    assert set(REMEASURED) == {column.name for column in TEXT_COLUMNS if column.remeasured}
    kept = texts[: len(texts) // 2]
    assert measure_texts_again(kept) == {name: measure_document(page(*kept))[name] for name in REMEASURED}
    assert measure_texts_again([]) == dict.fromkeys(REMEASURED, 0.0)


def test_every_signal_of_texts_can_be_read_from_stored_columns_and_names_those_it_reads() -> None:
    table = signals_table([measure(document, LEXICON) for document in (*sample_pages()[0], PAGE)])
    stored = {column.name for column in COLUMNS}
    for signal in TEXT_SIGNALS:
        assert set(signal.columns) <= stored
        needed = table.select(["block_kind", *signal.columns])
        values = signal.value(Frame.of(needed))
        frame = Frame.of(table)
        assert len(values) == (frame.num_documents if signal.level == "document" else len(frame.kinds)), signal.name
        assert signal.description
        assert signal.source
    assert {signal.name for signal in TEXT_SIGNALS if signal.over == "page"} == {"language", "language_score"}


def test_sums_and_ratios_are_over_the_kept_blocks() -> None:
    table = signals_table([measure(PAGE, LEXICON)])
    frame, second = Frame.of(table), Frame.of(table, keep_block=np.array([False, True, True, True]))
    document = signals_on("document")
    assert document["num_words"].value(frame).tolist() == [11]
    assert document["num_words"].value(second).tolist() == [9]
    assert document["stop_word_ratio"].value(second).tolist() == [pytest.approx(6 / 9)]
    assert document["num_required_words"].value(frame).tolist() == [2]
    assert document["num_required_words"].value(second).tolist() == [1]
    assert document["num_text_blocks"].value(second).tolist() == [1]
    assert document["common_word_ratio"].value(second).tolist() == [pytest.approx(1 / 9)]
    assert document["punctuation_ratio"].value(second).tolist() == [pytest.approx(2 / 11)]
    assert document["num_words_and_marks"].value(second).tolist() == [11]


def test_what_is_not_known_is_nan_and_of_no_text_at_all_ratios_are_0() -> None:
    nothing = page(("image", "http://a.example/i.png"))
    frame = Frame.of(signals_table([measure(each, Lexicon()) for each in (PAGE, nothing)]))
    document, text = signals_on("document"), signals_on("text")
    for name in ("common_word_ratio", "perplexity"):
        assert np.isnan(document[name].value(frame)[0])
        assert np.isnan(text[name].value(frame)).all()
    assert document["common_word_ratio"].value(frame)[1] == 0.0
    assert document["stop_word_ratio"].value(frame)[1] == 0.0
    assert document["mean_word_length"].value(frame)[1] == 0.0


def test_perplexity_is_that_of_all_kept_tokens_together() -> None:
    table = signals_table([measure(PAGE, Lexicon())])
    scored = {"block_log10_probability": [[-4.0, -12.0, None, None]], "block_num_scored_tokens": [[2, 4, None, None]]}
    for name, values in scored.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, SIGNALS.field(name).type))
    document, text = signals_on("document")["perplexity"], signals_on("text")["perplexity"]
    assert document.value(Frame.of(table)).tolist() == [pytest.approx(10 ** (16 / 6))]
    second = Frame.of(table, keep_block=np.array([False, True, True, True]))
    assert document.value(second).tolist() == [pytest.approx(10**3)]
    assert text.value(second)[:2].tolist() == [pytest.approx(10**2), pytest.approx(10**3)]


def test_the_language_of_the_page_is_a_word_that_rules_can_name() -> None:
    german = replace(PAGE, language="de", language_score=0.75)
    frame = Frame.of(signals_table([measure(each, Lexicon()) for each in (german, PAGE)]))
    assert signals_on("document")["language"].value(frame).to_pylist() == ["de", None]
    score = signals_on("document")["language_score"].value(frame)
    assert score[0] == 0.75
    assert np.isnan(score[1])


def test_names_of_signals_are_given_once_per_level() -> None:
    names = [(signal.level, signal.name) for signal in CATALOGUE]
    assert len(set(names)) == len(names)
    assert len({column.name for column in COLUMNS}) == len(COLUMNS)


def test_real_pages_look_like_english_prose() -> None:
    documents, _ = sample_pages()
    frame = Frame.of(signals_table([measure(document, Lexicon()) for document in documents]))
    words = signals_on("document")["num_words"].value(frame)
    assert words.sum() > 20_000
    stop_words = signals_on("document")["stop_word_ratio"].value(frame)
    assert 0.2 < (stop_words * words).sum() / words.sum() < 0.5
    assert 3 < np.median(signals_on("document")["mean_word_length"].value(frame)) < 8
    assert (signals_on("document")["alphabetic_word_ratio"].value(frame) <= 1).all()


ARPA = """
\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-1.5	<unk>	0
0	<s>	-0.3
-0.6	</s>	0
-0.7	the	-0.2
-0.9	stones	-0.1

\\2-grams:
-0.2	<s> the
-0.4	the stones

\\end\\
"""


def test_texts_are_scored_with_the_model_of_the_settings(tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="ufal-kenlm, of the extra curate, is not installed")
    (tmp_path / "model.arpa").write_text(ARPA)
    lexicon = load_lexicon(MeasureSettings(perplexity_model=tmp_path / "model.arpa"))
    assert lexicon.model is not None
    row = measure_document(PAGE, lexicon)
    scores = [lexicon.model.score(text) for text in PAGE.texts if text is not None]
    assert row["block_log10_probability"] == [*(probability for probability, _ in scores), None, None]
    assert row["block_num_scored_tokens"] == [*(tokens for _, tokens in scores), None, None]
    frame = Frame.of(signals_table([measure(PAGE, lexicon)]))
    heading, sentence, *_ = signals_on("text")["perplexity"].value(frame)
    assert heading == pytest.approx(10 ** ((0.2 + 0.4 + 0.1 + 0.6) / 3))  # the stones </s>
    assert sentence > heading
    assert heading < signals_on("document")["perplexity"].value(frame)[0] < sentence


def test_a_model_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("kenlm", reason="ufal-kenlm, of the extra curate, is not installed")
    with pytest.raises(InputError, match=r"model\.arpa: no such file"):
        load_lexicon(MeasureSettings(perplexity_model=tmp_path / "model.arpa"))
