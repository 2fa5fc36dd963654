"""The images job over a web that does what it likes: slow, endless, lying, leading astray, forbidding, objecting.

Small here (some 500 URLs, killed twice); `scripts/bench images acceptance` has 20,000 good pictures.
"""

from __future__ import annotations

import pytest
from fetching_acceptance import (
    Outcome,
    Scale,
    acceptance,
    forbidden_requests,
    impolite,
    needless_repeats,
    wrong_bytes,
    wrong_states,
)
from fetching_network import can_make_network

SCALE = Scale(num_hosts=30, pictures_per_host=12, num_others=1, kills=(120, 300))


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The run, killed on its way twice and taken up again, in a network of its own where one can be made."""
    return acceptance(tmp_path_factory.mktemp("acceptance"), SCALE, is_isolated=can_make_network())


def test_every_good_picture_is_kept_and_every_other_url_has_its_reason(outcome: Outcome) -> None:
    assert wrong_states(outcome) == []


def test_every_picture_is_stored_once_as_what_its_hash_says(outcome: Outcome) -> None:
    assert wrong_bytes(outcome) == []


def test_nothing_forbidden_is_asked_for_and_no_private_address_is_connected_to(outcome: Outcome) -> None:
    assert forbidden_requests(outcome) == []


def test_no_server_could_complain(outcome: Outcome) -> None:
    assert impolite(outcome) == []


def test_killed_and_resumed_it_repeats_no_more_than_what_was_in_flight(outcome: Outcome) -> None:
    assert len(outcome.kills) == len(SCALE.kills)
    assert needless_repeats(outcome) == []
