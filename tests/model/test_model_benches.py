"""The benchmarks beside transformers run, and compare equals: a ratio of two different things would say nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from generation.__main__ import CASES, main
from generation.__main__ import measure as measure_generation
from model.__main__ import ROWS
from model.__main__ import measure as measure_steps
from model.pairs import SIZES, make_pair
from model.peak import peak_mb

from carnac.model.formats import NAMES, FormatName


@pytest.mark.parametrize("name", NAMES)
def test_both_give_the_same_answers(name: FormatName) -> None:
    pair = make_pair(name, SIZES["tiny"], "cpu")
    for case in CASES:
        found = measure_generation(case, pair, tokens=6, pairs=1)
        assert found["equal"] == found["prompts"] == len(case.lengths)


@pytest.mark.parametrize("name", NAMES)
def test_both_have_the_same_loss(name: FormatName) -> None:
    found = measure_steps(name, "tiny", pairs=1, device="cpu")
    losses = found["losses"]
    assert isinstance(losses, dict)
    wanted = losses.pop("theirs")
    assert losses == pytest.approx(dict.fromkeys(losses, wanted), rel=1e-5)


@pytest.mark.parametrize("way", ["ours", "theirs"])
def test_peaks_are_measured_in_a_process_of_its_own(way: str) -> None:
    assert 100 < peak_mb(way, "llava", "tiny", ROWS["tiny"], ["1", "cpu"]) < 2000


def test_figures_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, threads = tmp_path / "figures.json", torch.get_num_threads()
    words = ["--size", "tiny", "--format", "llava", "--pairs", "2", "--tokens", "2", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["generation", *words])
    main()
    torch.set_num_threads(threads)
    assert [line["case"] for line in json.loads(out.read_text())["results"]] == [case.name for case in CASES]
