from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from jobs_model import WORDS, DoneHere, document, picture, row, runner, write_model, write_shards

from carnac.core.errors import InputError
from carnac.engine.manifest import read_manifest
from carnac.engine.run import EarlyEnd
from carnac.engine.tables import read_rows
from carnac.evaluate import grounding
from carnac.evaluate.settings import GroundingSettings
from carnac.jobs.evaluate import ROWS_AT_ONCE, EvaluateRecipe, run
from carnac.jobs.models import open_model
from carnac.mix.assemble import batch_of_samples
from carnac.sequence.layout import sample_from_row

QUICK = GroundingSettings(resamples=200)
DOCUMENTS = [document(number) for number in range(4)]


def recipe(model: Path, shards: Path, **fields: Any) -> EvaluateRecipe:
    values = {"grounding": QUICK, **fields}
    return EvaluateRecipe(job="evaluate", model=model, shards=shards, output=shards.parent / "evaluation", **values)


def evaluated(model: Path, shards: Path, **fields: Any) -> tuple[dict[str, Any], list[dict[str, Any]], str]:
    """Return evaluation.json, the rows and what was printed."""
    told, out = runner()
    run(recipe(model, shards, **fields), told)
    folder = shards.parent / "evaluation"
    rows = [line for entry in read_manifest(folder, "evaluation").parts for line in read_rows(entry.path)]
    return json.loads((folder / "evaluation.json").read_bytes()), rows, out.getvalue()


def test_rows_summary_and_sentence(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", [*DOCUMENTS[:2], row("text", [WORDS])], DOCUMENTS[2:])
    found, rows, printed = evaluated(model, shards)
    assert [line["id"] for line in rows] == ["d0", "d1", "d2", "d3"]
    assert all(0 < line["tokens"] < line["all_tokens"] for line in rows)
    tokens = sum(line["tokens"] for line in rows)
    assert found["tokens"] == tokens
    for name in ("right", "shuffled", "none"):
        assert found["losses"][name] == pytest.approx(sum(line[name] for line in rows) / tokens)
    gain = found["gains"]["shuffled"]
    assert gain["estimate"] == pytest.approx(found["losses"]["shuffled"] - found["losses"]["right"])
    assert found["verdict"] in printed
    assert (tmp_path / "evaluation" / "recipe.toml").is_file()


def test_the_losses_are_the_models(model: Path, tmp_path: Path, done: DoneHere) -> None:
    """The right condition against the model called by hand, one window at a time; the document has several."""
    long = row("long", [WORDS, picture(5), " ".join([WORDS] * 35), picture(6), WORDS])
    shards = write_shards(tmp_path / "heldout", [long, DOCUMENTS[1]])
    _, rows, _ = evaluated(model, shards)
    opened = open_model(model)
    batch = batch_of_samples(
        [sample_from_row(long)], opened.tokenizer, opened.inputs.pictures, opened.inputs.row_tokens
    )
    assert len(batch.input_ids) > ROWS_AT_ONCE
    with torch.inference_mode():
        _, per_token = opened.model.loss(batch, batch.label_tokens)
    assert rows[0]["all_loss"] == pytest.approx(float(per_token.sum()), rel=1e-5)
    seeing = per_token.numpy()[batch.image_of_token >= 0]
    assert rows[0]["right"] == pytest.approx(float(seeing.sum()), rel=1e-5)
    assert rows[0]["images"] == 2


def test_a_limit_looks_at_the_first_documents(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", DOCUMENTS[:2], DOCUMENTS[2:])
    found, rows, _ = evaluated(model, shards, limit=3)
    assert [line["id"] for line in rows] == ["d0", "d1", "d2"]
    assert found["documents"] == 3
    _, rows, _ = evaluated(model, shards)
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("shards", "fields"),
    [
        (DOCUMENTS, {"limit": 1}),
        ([], {}),
        ([row("text", [WORDS]), row("more", [WORDS])], {}),
        ([DOCUMENTS[0], row("text", [WORDS])], {}),
        ([DOCUMENTS[0], {**DOCUMENTS[1], "id": "d0"}], {}),  # one document twice
        ([DOCUMENTS[0], row("undecodable", [WORDS, b"no picture", WORDS])], {}),
    ],
    ids=["limit", "empty", "texts", "one", "twice", "undecodable"],
)
def test_too_few_documents_are_a_sentence(
    model: Path, tmp_path: Path, done: DoneHere, shards: list[dict[str, Any]], fields: dict[str, int]
) -> None:
    found, rows, printed = evaluated(model, write_shards(tmp_path / "heldout", shards), **fields)
    assert rows == []
    assert found["losses"] is None
    assert found["verdict"].startswith("Not measured: fewer than two held-out documents have text after an image")
    assert found["verdict"] in printed


def test_done_is_done_and_another_model_is_not(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", DOCUMENTS[:2])
    first, _, _ = evaluated(model, shards)
    assert evaluated(model, shards)[0] == first
    assert done.units == ["evaluation/grounding"]
    evaluated(model, shards, grounding=GroundingSettings(resamples=200, seed=3))
    assert len(done.units) == 2


def test_bad_records_cost_themselves(model: Path, tmp_path: Path, done: DoneHere) -> None:
    broken = row("broken", [WORDS])
    broken["texts"] = [None]
    undecodable = row("undecodable", [WORDS, picture(7)[:80], WORDS])
    shards = write_shards(tmp_path / "heldout", [broken, undecodable, *DOCUMENTS])
    found, rows, _ = evaluated(model, shards)
    assert [line["id"] for line in rows] == ["undecodable", "d0", "d1", "d2", "d3"]
    assert (rows[0]["tokens"], rows[0]["right"]) == (0, 0.0)  # its labels are masked
    assert found["documents"] == 4
    manifest = read_manifest(tmp_path / "evaluation")
    assert manifest.counts["lost.bad_block"] == 1
    assert [entry.record for ledger in manifest.ledgers() for entry in ledger.quarantine] == ["00000-a@0"]


def test_one_document_of_many_images_leaves_room_for_others(
    model: Path, tmp_path: Path, done: DoneHere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grounding, "MAX_POOL", 4)
    gallery = row("gallery", [picture(20 + number) for number in range(6)] + [WORDS])
    found, rows, _ = evaluated(model, write_shards(tmp_path / "heldout", [gallery, *DOCUMENTS]))
    assert len(rows) == 5
    assert found["losses"] is not None


def test_a_model_that_diverged_is_a_sentence(tmp_path: Path, done: DoneHere) -> None:
    broken = write_model(tmp_path / "model", weight=float("nan"))
    shards = write_shards(tmp_path / "heldout", DOCUMENTS[:2])
    with pytest.raises(
        InputError, match=r"model: its loss on document d0 is not a finite number: the training diverged"
    ):
        evaluated(broken, shards)
    assert not list((tmp_path / "evaluation").glob("*.parquet"))


def test_wrong_folders_are_sentences(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", DOCUMENTS[:2])
    with pytest.raises(InputError, match="holds stage 'shards'; wanted the finished folder of stage 'model'"):
        run(recipe(shards, shards), runner()[0])
    with pytest.raises(InputError, match=r"gone: does not exist"):
        run(recipe(model, tmp_path / "gone"), runner()[0])
    half = shutil.copytree(model, tmp_path / "half")
    (half / "inputs.json").unlink()
    with pytest.raises(InputError, match=r"inputs\.json: cannot be read"):
        run(recipe(half, shards), runner()[0])


def test_a_dry_run_says_and_writes_nothing(model: Path, tmp_path: Path, done: DoneHere) -> None:
    shards = write_shards(tmp_path / "heldout", DOCUMENTS[:2])
    dry, out = runner(dry_run=True)
    with pytest.raises(EarlyEnd):
        run(recipe(model, shards), dry)
    assert "evaluation: 1 units, 0 done, 1 to do" in out.getvalue()
    assert not (tmp_path / "evaluation").exists()
    run(recipe(model, shards), runner()[0])
    run(recipe(model, shards), dry)
    assert "1 done, 0 to do" in out.getvalue()
