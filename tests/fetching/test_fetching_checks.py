"""The checks of the acceptance run see what they look for: in a run that is rude on purpose, and in made-up logs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from fetching_acceptance import (
    HTTP,
    Outcome,
    Scale,
    acceptance,
    forbidden_requests,
    impolite,
    needless_repeats,
    wrong_states,
)
from fetching_log import Request, Seen
from fetching_run import Ended
from fetching_site import Link

RUDE = {
    "robots": False,
    "opt_outs": [],
    "delay_seconds": 0.0,
    "num_connections": 32,
    "num_connections_per_host": 8,
    "timeout_seconds": 1.0,
    "idle_timeout_seconds": 0.5,
    "retries": 0,
    "rounds": 1,
}


@pytest.fixture(scope="module")
def rude(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """A run that obeys nothing, judged as one that should."""
    scale = Scale(num_hosts=4, pictures_per_host=12, num_others=1, workers=1, http=RUDE)
    made = acceptance(tmp_path_factory.mktemp("rude"), scale, is_isolated=False)
    return dataclasses.replace(made, http=HTTP)


def test_requests_for_what_is_forbidden_are_seen(rude: Outcome) -> None:
    hosts = {one.partition(".")[0] for one in forbidden_requests(rude)}
    assert hosts == {
        f"{kind}-000" for kind in ("forbidden", "forbidden-us", "ailing", "tarpit", "partly", "verbose", "led")
    }


def test_pictures_that_must_not_be_kept_are_seen(rude: Outcome) -> None:
    wrong = " ".join(wrong_states(rude))
    assert all(f"{kind}-000" in wrong for kind in ("forbidden", "objecting"))
    assert "unavailable-000" in wrong  # the later round, in which it would be there, is missing


def test_rudeness_is_seen(rude: Outcome) -> None:
    wrong = impolite(rude)
    for what in ("requests at once", "too early", "before robots.txt"):
        assert any("good-003" in one and what in one for one in wrong), what
    assert any("patient-000" in one and "too early" in one for one in wrong)


def outcome(requests: list[Request], *kills: float) -> Outcome:
    runs = [*(Ended(output="", code=-9, seconds=1, killed_at=kill) for kill in kills)]
    return Outcome(
        scale=Scale(num_hosts=1, pictures_per_host=1, num_others=0, workers=1),
        folder=Path(),
        links=[Link(url="http://h/1.jpg", picture=1), Link(url="http://h/2.jpg", picture=2)],
        rows={},
        seen=Seen(requests=tuple(requests), connections=()),
        runs=[*runs, Ended(output="", code=0, seconds=1)],
        http={**HTTP, "num_connections": 1},
        is_isolated=False,
    )


def asked(began: float, ended: float | None, name: str = "1", status: int = 200) -> Request:
    path = f"/{name}.jpg"
    return Request(host="h", path=path, address="a", connection=0, began=began, ended=ended, status=status)


def test_a_repeat_is_needless_unless_it_was_in_flight_at_a_kill() -> None:
    assert needless_repeats(outcome([asked(0, 1), asked(9, 10)], 5)) != []
    assert needless_repeats(outcome([asked(0, 4.5), asked(9, 10)], 5)) == []
    assert needless_repeats(outcome([asked(0, None), asked(9, 10)], 5)) == []
    assert needless_repeats(outcome([asked(0, 1), asked(2, 3)], 5)) != []
    assert needless_repeats(outcome([asked(0, 1), asked(2, 3)])) != []


def test_more_repeats_than_were_in_flight_are_seen() -> None:
    in_flight = [asked(4, None), asked(4, None, "2"), asked(9, 10), asked(9, 10, "2")]
    assert needless_repeats(outcome(in_flight, 5)) == ["2 requests repeated, 1 allowed"]
    assert needless_repeats(outcome(in_flight, 5, 6)) == []


def test_asking_again_after_a_retry_after_is_no_repeat() -> None:
    assert needless_repeats(outcome([asked(0, 1, status=429), asked(4, 5)])) == []
