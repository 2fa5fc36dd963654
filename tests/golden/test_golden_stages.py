"""Each stage of the data chain writes what it wrote, or says by its version that it does not.

After a meant change: raise the stage's version, then `python tests/golden/golden_update.py --update`.
"""

from __future__ import annotations

import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from golden_chain import MANY, NEAR, OUTPUTS, PHASH, READS, REPEATS, run_chain
from golden_change import change_value, change_version, copy_chain, rewrite
from golden_measure import Golden, Keys, measure, measure_rows
from golden_sources import EXCEPTIONS, ROOT, golden_stages, hints, stages_in
from golden_update import explain, main, read_golden, update
from golden_verdict import COMMAND
from story_runs import all_rows

FIRST_FOLDER = {  # of each stage: the one in which these tests change a value
    "documents": "documents",
    "wanted": "images/wanted",
    "urls": "images/urls",
    "archived": "images#steps",
    "images": "images",
    "joined": "images/joined",
    "found": "images/found",
    "signals": "curated/signals",
    "image_signals": "curated/image_signals",
    "kept_signals": "curated/kept_signals/documents",
    "document_values": "curated/masks/documents/values",
    "masks": "curated/masks/blocks",
    "repeat_keys": f"{REPEATS}/keys/url",
    "repeats": f"{REPEATS}#text",
    **{f"near_{step}": f"{MANY}/near/{step}" for step in NEAR},
    **{f"phash_{step}": f"{MANY}/phash/{step}" for step in PHASH},
    "list_entries": "more/listed/lists/entries",
    "listed": "more/listed/lists",
    "contamination_sets": "more/contaminated/sets/sets",
    "contaminated": "more/contaminated/sets",
    "funnel_parts": "curated/funnel/parts",
    "funnel": "curated/funnel",
    "funnel_excerpts": "curated/funnel/excerpts",
    "card_parts": "shards/card/parts",
    "card": "shards/card",
    "shards": "shards/train",
    "tokenizer": "plan/tokenizer",
    "pieces": "plan/pieces",
    "plan": "plan/rows",
}


# No page shows an image twice; what looks alike went before what is alike to the byte.
NOTHING_FOUND = {f"{MANY}#{kind}" for kind in ("image_in_document", "image_url", "image_sha256")}


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the chain was run; not to be changed."""
    folder = tmp_path_factory.mktemp("golden") / "chain"
    folder.mkdir()
    run_chain(folder)
    return folder


@pytest.fixture(scope="module")
def now(chain: Path) -> Golden:
    """What the chain says."""
    return measure(chain)


def after(now: Golden, copy: Path, *folders: str) -> Golden:
    """What a copy of the chain says, in which only `folders` were touched."""
    return {**now, "folders": {**now["folders"], **measure(copy, folders)["folders"]}}


@pytest.mark.parametrize("stage", sorted(golden_stages()))
def test_a_stage_writes_what_it_wrote(stage: str, now: Golden) -> None:
    golden = read_golden()
    text = explain(golden, now, stage)
    known = {folder["stage"] for folder in golden["folders"].values()}
    if not text and stage not in known:
        text = (
            f"stage {stage} ({golden_stages()[stage]}): no golden output, and the chain of golden_chain.py never "
            f"writes it. Add what writes it to the chain, then run: {COMMAND}"
        )
    if text:
        pytest.fail(text, pytrace=False)


def test_golden_entries_are_those_of_stages(now: Golden) -> None:
    stages = {folder["stage"] for folder in [*now["folders"].values(), *read_golden()["folders"].values()]}
    assert stages - set(golden_stages()) == set(), "folders of stages that src/carnac does not have, or of exceptions"
    assert {name for name, _ in EXCEPTIONS} <= set(stages_in()), "exceptions for stages that are no more"
    assert all(reason for _, reason in EXCEPTIONS)
    assert set(now["folders"]) == set(READS), "READS of golden_chain.py says what each folder reads: one is missing"
    assert set(FIRST_FOLDER) == set(golden_stages()), "FIRST_FOLDER of this test names a folder of each stage"


def test_the_chain_does_what_stages_are_for(chain: Path, now: Golden) -> None:
    """Otherwise a change of what they do would go unseen."""
    outputs = chain / OUTPUTS
    # Of the second curation a few searches find less in so few pages.
    few = {name for name, folder in now["folders"].items() if folder["num_rows"] < 4}
    assert all(name.startswith("more/") for name in few)
    assert {name for name in few if not now["folders"][name]["num_rows"]} <= NOTHING_FOUND
    assert {row["kind"] for row in all_rows(outputs / REPEATS)} == {"url", "text"}
    assert sum(number > 0 for number in now["folders"][f"{REPEATS}#text"]["rows"]["units"].values()) > 1
    assert {row["reason"] for row in all_rows(outputs / "images")} >= {None, "not_in_archive", "not_an_image"}
    assert sum(now["folders"]["documents"]["lost"]["units"].values()) == 1
    masks = all_rows(outputs / "curated/masks/repeats")
    assert len({row["reason"] for row in masks}) >= 4
    assert len({reason for row in masks for reason in row["block_reason"]}) >= 3
    rows = all_rows(outputs / "plan/rows")
    assert {row["epoch"] for row in rows} >= {0, 1}
    assert max(len(row["pieces"]) for row in rows) > 1


@pytest.mark.parametrize("stage", FIRST_FOLDER)
def test_one_changed_value_asks_for_a_version(stage: str, chain: Path, now: Golden, tmp_path: Path) -> None:
    folder, golden_file = FIRST_FOLDER[stage], tmp_path / "golden.json"
    assert update(now, golden_file)[0]
    golden = read_golden(golden_file)
    copy = copy_chain(chain, tmp_path / "copy")
    change = change_value(copy, folder)
    changed = after(now, copy, folder)
    text = explain(golden, changed, stage)
    assert f"stage {stage}: its output changed, but not its version" in text
    assert f"{folder}: rows: column {change.column} changed in 1 of" in text
    assert f"rows: {change.unit}@{change.row}\n" in text
    assert f"raise the version in {golden_stages()[stage]}, then run: {COMMAND}" in text
    assert update(changed, golden_file)[0] is False
    assert read_golden(golden_file) == golden

    change_version(copy, folder, +1)
    raised = after(now, copy, folder)
    text = explain(golden, raised, stage)
    version = now["folders"][folder]["version"]
    assert f"{folder}: version {version} -> {version + 1}\n" in text
    assert f"column {change.column} changed" in text
    assert "raise" not in text
    assert f"If all of this is meant, run: {COMMAND}" in text
    assert update(raised, golden_file)[0]
    assert explain(read_golden(golden_file), raised) == ""


def test_a_copy_says_what_the_chain_says(chain: Path, now: Golden, tmp_path: Path) -> None:
    copy = copy_chain(chain, tmp_path / "elsewhere")
    assert measure(copy) == now
    change_version(copy, "images", +1)
    text = explain(now, measure(copy))
    assert text.startswith("stage images: the golden file does not know")
    assert "images: version 3 -> 4\n  images: output as before\n" in text


def test_what_reads_a_changed_folder_is_not_blamed(chain: Path, now: Golden, tmp_path: Path) -> None:
    copy = copy_chain(chain, tmp_path / "copy")
    for folder in ("documents", "curated/signals"):
        change_value(copy, folder)
    changed = after(now, copy, "documents", "curated/signals")
    assert "but not its version" in explain(now, changed, "documents")
    text = explain(now, changed, "signals")
    assert "curated/signals: that follows from: documents" in text
    assert "raise" not in text


def test_other_settings_are_no_reason_for_a_version(now: Golden) -> None:
    other = deepcopy(now)
    other["folders"]["plan/rows"]["settings"] = "other"
    assert "other settings, output as before" in explain(now, other, "plan")
    other["folders"]["plan/rows"]["digest"] = "other"
    other["folders"]["plan/rows"]["counts"]["images"] += 1
    text = explain(now, other, "plan")
    assert "count images: " in text
    assert "follows from: its settings" in text
    assert "raise" not in text


def test_files_counts_lost_records_and_rows_count_too(chain: Path, now: Golden, tmp_path: Path) -> None:
    copy = copy_chain(chain, tmp_path / "copy")
    file = next((copy / OUTPUTS / "plan/tokenizer").glob("tokenizer-*.json"))
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace("\n", " \n", 1))
    assert "plan/tokenizer: file tokenizer-KEY.json changed" in explain(
        now, after(now, copy, "plan/tokenizer"), "tokenizer"
    )

    part = next((copy / OUTPUTS / "documents").glob("pages-*.parquet"))
    table = pq.read_table(part)
    rewrite(part, table.slice(0, 39).rename_columns([name.replace("title", "name") for name in table.column_names]))
    said = explain(now, after(now, copy, "documents"), "documents")
    assert "rows: unit pages: 40 -> 39" in said
    assert "types: name: nothing -> string" in said
    assert "rows: column name is new" in said

    other = deepcopy(now)
    lost = other["folders"]["documents"]["lost"]["columns"]["reason"]
    lost["digest"] = lost["values"] = "ffff"
    other["folders"]["documents"]["digest"] = "other"
    assert "documents: lost records: column reason changed in 1 of 1 rows: mirror@0" in explain(now, other, "documents")


def test_floats_alone_may_be_another_processor(now: Golden) -> None:
    other = deepcopy(now)
    score = other["folders"]["documents"]["rows"]["columns"]["language_score"]
    score["digest"], score["values"] = "other", "ffff" + score["values"][4:]
    other["folders"]["documents"]["digest"] = "other"
    text = explain(now, other, "documents")
    assert "documents: rows: column language_score changed in 1 of 68 rows: pages@0\n  Only floats differ" in text
    other["folders"]["documents"]["counts"]["images"] += 1
    assert "Only floats differ" not in explain(now, other, "documents")


def test_a_version_never_goes_down(chain: Path, now: Golden, tmp_path: Path) -> None:
    assert update(now, tmp_path / "golden.json")[0]
    copy = copy_chain(chain, tmp_path / "copy")
    change_version(copy, "images", -1)
    written, text = update(after(now, copy, "images"), tmp_path / "golden.json")
    assert not written
    assert "stage images: its version went down" in text


def test_a_stage_without_an_entry_and_an_entry_without_a_stage(now: Golden) -> None:
    other = deepcopy(now)
    del other["folders"]["images"]
    assert "images: the chain writes it, but it has no golden entry" in explain(other, now, "images")
    assert "images: golden, but no longer written" in explain(now, other, "images")


def test_the_command_does_what_the_message_says(
    chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden, copy = tmp_path / "golden.json", copy_chain(chain, tmp_path / "copy")
    arguments = [f"--golden={golden}", f"--chain={copy}"]
    assert main(arguments) == 1
    assert not golden.exists()
    assert main([*arguments, "--update"]) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out == "golden.json: every stage writes what it wrote.\n"

    before = golden.read_bytes()
    change_value(copy, "shards/train")
    command = [sys.executable, *COMMAND.split()[1:], *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "raise the version in src/carnac/jobs/conversations.py:" in done.stdout  # two jobs write shards
    assert "src/carnac/jobs/shards.py:" in done.stdout
    assert done.stdout.endswith("golden.json: REFUSED, nothing written.\n")
    assert golden.read_bytes() == before


def test_keys_and_bytes_are_told_from_content() -> None:
    key = "0123456789abcdef" * 4
    keys = Keys([key, "f" * 64])
    assert keys.hide(f"packs/pages-{key[:16]}.tar {key} {'0' * 64}") == f"packs/pages-KEY.tar KEY {'0' * 64}"
    rows: list[dict[str, Any]] = [{"pack": f"pages-{key[:16]}.tar", "bytes": b"a"}, {"pack": None, "bytes": b"b"}]
    columns = measure_rows({"unit": rows}, ["pack", "bytes"], keys)["columns"]
    other = measure_rows({"unit": [{**row, "bytes": b"a"} for row in rows]}, ["pack", "bytes"], Keys(["1" * 64]))[
        "columns"
    ]
    assert columns["bytes"]["values"][:4] == other["bytes"]["values"][:4]
    assert columns["bytes"]["values"][4:] != other["bytes"]["values"][4:]
    assert columns["pack"] != other["pack"]


def test_other_libraries_are_named_as_a_cause() -> None:
    constraints = "pyarrow==1.0\nFastWARC==2.0\n"
    assert hints({"pyarrow": "1.0", "fastwarc": "2.0"}, constraints, {"python": "3.11"}, {"python": "3.11"}) == []
    found = hints({"pyarrow": "1.1", "fastwarc": "2.0"}, constraints, {"python": "3.11"}, {"python": "3.12"})
    assert "pyarrow 1.1 (constraints.txt: 1.0)" in found[0]
    assert "fastwarc" not in found[0]
    assert "python 3.12 (golden: 3.11)" in found[1]


def test_a_stage_must_write_its_name_out(tmp_path: Path) -> None:
    folder = tmp_path / "src" / "carnac"
    folder.mkdir(parents=True)
    (folder / "new.py").write_text("A = Stage(name='a', version=1)\nB = unit.Stage(name='b')\nC = Stage(name='a')\n")
    assert stages_in(folder) == {"a": "src/carnac/new.py:1 and src/carnac/new.py:3", "b": "src/carnac/new.py:2"}
    (folder / "new.py").write_text("name = 'a'\nA = Stage(name=name, version=1)\n")
    with pytest.raises(ValueError, match=r"src/carnac/new\.py:2: a Stage without name"):
        stages_in(folder)
