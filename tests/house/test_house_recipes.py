from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest
from house_tree import ROOT, tracked_files
from pydantic import BaseModel

import carnac
from carnac.jobs import JOBS, RecipeModels, load_job
from carnac.jobs.recipes import load_checked
from carnac.recipe.settings import Recipe, Settings

FOLDERS = sorted({path.parent for path in tracked_files() if path.parts[0] == "recipes" and path.suffix == ".toml"})


def _settings() -> set[type[Settings]]:
    for module in pkgutil.walk_packages(carnac.__path__, "carnac."):
        if module.name.endswith(".settings"):
            importlib.import_module(module.name)
    dict(RecipeModels())
    found: set[type[Settings]] = set()
    left = list(Settings.__subclasses__())
    while left:
        found.add(kind := left.pop())
        left += kind.__subclasses__()
    return {kind for kind in found if kind.__module__.startswith("carnac.")}


def test_every_setting_is_described() -> None:
    kinds = _settings()
    assert len(kinds) > len(JOBS)
    undescribed = [
        f"{kind.__name__}.{name}"
        for kind in kinds
        for name, field in kind.model_fields.items()
        if not field.description
    ]
    assert undescribed == []


def test_settings_are_frozen_strict_and_know_no_other_keys() -> None:
    for kind in _settings():
        assert (kind.model_config["frozen"], kind.model_config["strict"], kind.model_config["extra"]) == (
            True,
            True,
            "forbid",
        )


def test_tables_of_recipes_are_settings() -> None:
    for kind in _settings():
        for module_member in vars(inspect.getmodule(kind)).values():
            if (
                isinstance(module_member, type)
                and issubclass(module_member, BaseModel)
                and module_member is not BaseModel
            ):
                assert issubclass(module_member, Settings), module_member


@pytest.mark.parametrize("name", JOBS)
def test_every_job_has_the_face_of_a_job(name: str) -> None:
    job = load_job(name)
    assert issubclass(job.RECIPE, Recipe)
    assert job.RECIPE.model_fields["job"].annotation is not str, "a recipe names its job by a literal"
    assert list(inspect.signature(job.run).parameters) == ["recipe", "runner"]


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_the_recipes_that_we_ship_hold_no_mistake(folder: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    recipes = load_checked([ROOT / str(folder)], [])
    assert recipes
