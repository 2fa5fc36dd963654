from __future__ import annotations

import pickle

import pytest

from carnac.core import errors
from carnac.core.errors import CarnacError, InputError, OutputError, RecipeError, RecordError, RunError
from carnac.recipe.mistakes import Mistake


def test_a_recipe_error_prints_one_line_per_mistake() -> None:
    mistakes = [
        Mistake(where="a.toml", line=3, key="training.steps", message="missing."),
        Mistake(where="--set", line=None, key="", message="got 'x', wanted key=value."),
    ]
    error = RecipeError(mistakes)
    assert str(error) == "a.toml:3: training.steps: missing.\n--set: got 'x', wanted key=value."
    assert error.mistakes == tuple(mistakes)


def test_a_record_error_prints_its_reason_and_detail() -> None:
    assert str(RecordError("not_an_image", "starts with <html")) == "not_an_image: starts with <html"
    assert str(RecordError("not_an_image")) == "not_an_image"


@pytest.mark.parametrize(
    "error",
    [
        InputError("a"),
        OutputError("b"),
        RunError("c"),
        RecordError("reason", "detail"),
        RecordError("reason"),
        RecipeError([Mistake(where="a.toml", line=3, key="x", message="y")]),
        RecipeError(["a sentence", "another"]),
    ],
)
def test_errors_survive_the_way_from_a_worker(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))  # noqa: S301 -- what multiprocessing does with an error
    assert type(back) is type(error)
    assert str(back) == str(error)
    for field in ("reason", "detail", "mistakes"):
        assert getattr(back, field, None) == getattr(error, field, None)


def test_a_bad_record_is_no_error_of_the_run() -> None:
    assert not issubclass(RecordError, CarnacError)
    assert all(issubclass(kind, CarnacError) for kind in (RecipeError, InputError, OutputError, RunError))


def test_the_tree_is_drawn_in_the_docstring() -> None:
    assert errors.__doc__ is not None
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, Exception):
            assert name in errors.__doc__
