from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from carnac.sequence.settings import PictureSettings, TokenizerSettings


def test_lists_of_a_recipe_become_tuples() -> None:
    data = json.dumps({"size_px": 64, "mean": [0, 0.5, 1], "std": [1, 1, 1]})
    assert PictureSettings.model_validate_json(data).mean == (0.0, 0.5, 1.0)


def test_a_side_that_is_no_multiple_of_the_patch_is_refused_with_one_that_is() -> None:
    with pytest.raises(ValidationError, match=r"try size_px = 96\."):
        PictureSettings(size_px=100, patch_px=16)
    with pytest.raises(ValidationError, match=r"try size_px = 16\."):
        PictureSettings(size_px=7, patch_px=16)


@pytest.mark.parametrize("wrong", [{"std": (0.5, 0.0, 0.5)}, {"mean": (0.5, 0.5)}, {"patch_px": 0}, {"sise_px": 3}])
def test_wrong_picture_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PictureSettings.model_validate(wrong)


def test_a_vocabulary_holds_at_least_the_bytes_and_the_special_tokens() -> None:
    with pytest.raises(ValidationError):
        TokenizerSettings(vocabulary_size=259)
