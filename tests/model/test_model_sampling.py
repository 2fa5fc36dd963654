from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers.generation.logits_process import TopPLogitsWarper

from carnac.core.seeds import generator
from carnac.model.generation.sampling import LIKELIEST, choose, draws_of, least_kept
from carnac.model.settings import GenerationSettings

PROBABILITIES = torch.tensor([0.1, 0.5, 0.15, 0.25])


def drawn(probabilities: torch.Tensor, count: int, top_p: float = 1.0, temperature: float = 1.0) -> list[int]:
    settings = GenerationSettings(temperature=temperature, top_p=top_p)
    draws = draws_of(settings, 0)
    return [int(choose(probabilities.log()[None], settings, [draws])) for _ in range(count)]


def test_top_p_draws_from_the_smallest_set_that_reaches_it() -> None:
    assert set(drawn(PROBABILITIES, 300, top_p=0.4)) == {1}
    assert set(drawn(PROBABILITIES, 300, top_p=0.6)) == {1, 3}
    assert set(drawn(PROBABILITIES, 300)) == {0, 1, 2, 3}
    assert set(drawn(PROBABILITIES, 300, temperature=0.01)) == {1}
    assert set(drawn(PROBABILITIES, 300, top_p=0.5, temperature=0.0)) == {1}
    assert set(drawn(PROBABILITIES, 3, top_p=0.5, temperature=1e-39)) == {1}  # a quotient beyond float32


def test_ids_come_as_often_as_they_are_likely() -> None:
    counts = np.bincount(drawn(PROBABILITIES, 4000), minlength=4) / 4000
    # Four standard errors of the largest: 4 * sqrt(0.25 / 4000).
    assert np.abs(counts - PROBABILITIES.numpy()).max() < 0.032
    kept = np.bincount(drawn(PROBABILITIES, 4000, top_p=0.6), minlength=4) / 4000
    assert np.abs(kept - [0, 2 / 3, 0, 1 / 3]).max() < 0.032


def test_temperature_sharpens_and_flattens() -> None:
    flat = np.bincount(drawn(PROBABILITIES, 4000, temperature=100.0), minlength=4) / 4000
    assert np.abs(flat - 0.25).max() < 0.032


def test_impossible_ids_are_never_drawn() -> None:
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    assert set(drawn(probabilities, 500)) == {1, 3}


def test_a_flat_vocabulary_larger_than_the_likeliest_is_sorted_whole() -> None:
    size = 4 * LIKELIEST
    # Half of the ids are slightly likelier; together they hold 0.6 of all.
    probabilities = torch.tensor([1.2 / size, 0.8 / size]).repeat(size // 2)
    found = drawn(probabilities, 400, top_p=0.59)
    assert all(token % 2 == 0 for token in found)
    assert len(set(found)) > LIKELIEST // 2
    assert any(token % 2 for token in drawn(probabilities, 400, top_p=0.99))


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_the_kept_ids_are_those_that_transformers_keeps(top_p: float) -> None:
    logits = torch.tensor(generator(7, "logits").standard_normal((20, 500)) * 3)
    warper: Any = TopPLogitsWarper
    kept = warper(top_p)(None, logits.clone()).isfinite()
    probabilities = logits.softmax(-1)
    assert torch.equal(probabilities >= least_kept(probabilities, top_p), kept)


def test_rows_choose_as_each_alone() -> None:
    logits = torch.tensor(generator(0, "logits").standard_normal((6, 1000)) * 5)
    for settings in (
        GenerationSettings(),
        GenerationSettings(temperature=1.0),
        GenerationSettings(temperature=2.0, top_p=0.8),
        GenerationSettings(temperature=9.0, top_p=0.999, seed=4),
    ):
        together = choose(logits, settings, [draws_of(settings, row) for row in range(6)]).tolist()
        assert together == [int(choose(logits[[row]], settings, [draws_of(settings, row)])) for row in range(6)]


@pytest.mark.parametrize(("number", "token"), [(0.0, 1), (float(np.nextafter(1.0, 0.0)), 3)])
def test_the_ends_of_the_draws_are_the_first_and_last_possible_ids(number: float, token: int) -> None:
    class Fixed(np.random.Generator):
        def random(self, *_args: object, **_keywords: object) -> float:  # type: ignore[override]
            return number

    settings = GenerationSettings(temperature=1.0)
    logits = torch.tensor([[0.0, 0.3, 0.3, 0.4]]).log()
    assert choose(logits, settings, [Fixed(np.random.Philox(0))]).tolist() == [token]
