from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from house_tree import ROOT, tracked_files

SOURCES = [path for path in tracked_files() if path.parts[0] == "src" and path.suffix == ".py"]
BANNED_MODULES = {"util", "utils", "common", "helper", "helpers", "misc", "manager", "managers", "handler", "handlers"}
BANNED_CLASSES = ("Manager", "Handler", "Processor", "Util", "Utils", "Helper")


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def _definitions(*kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    for path in SOURCES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, kinds):
                yield path, node


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 30


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > 400} == {}


def test_no_function_is_longer_than_50_lines() -> None:
    long = {}
    for path, node in _definitions(ast.FunctionDef, ast.AsyncFunctionDef):
        assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        length = (node.end_lineno or 0) - node.lineno + 1
        if length > 50:
            long[f"{path}:{node.lineno} {node.name}"] = length
    assert long == {}


def test_modules_and_classes_have_names_that_say_something() -> None:
    modules = [str(path) for path in SOURCES if {path.stem, *path.parts} & BANNED_MODULES]
    classes = [
        f"{path} {node.name}"
        for path, node in _definitions(ast.ClassDef)
        if isinstance(node, ast.ClassDef) and node.name.endswith(BANNED_CLASSES)
    ]
    assert modules == []
    assert classes == []


def test_every_error_is_drawn_in_the_tree_of_errors() -> None:
    bases = {}
    for _, node in _definitions(ast.ClassDef):
        assert isinstance(node, ast.ClassDef)
        bases[node.name] = {base.id for base in node.bases if isinstance(base, ast.Name)}
    errors = {"CarnacError", "RecordError"}
    while more := {name for name, above in bases.items() if above & errors} - errors:
        errors |= more
    drawn = ast.get_docstring(_tree(Path("src/carnac/core/errors.py"))) or ""
    assert len(errors) >= 6
    assert {name for name in errors if not re.search(rf"\b{name}\b", drawn)} == set()


def test_nothing_is_unpickled_or_evaluated() -> None:
    calls = set()
    for path, node in _definitions(ast.Call, ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            calls.add(f"{path}:{node.lineno} {node.func.id}")
        if isinstance(node, ast.Import) and {name.name for name in node.names} & {"pickle", "dill", "joblib", "shelve"}:
            calls.add(f"{path}:{node.lineno} import")
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "dill", "joblib", "shelve"):
            calls.add(f"{path}:{node.lineno} import")
    assert calls == set()


def test_sources_are_ascii() -> None:
    assert [str(path) for path in SOURCES if not (ROOT / path).read_text().isascii()] == []


# The slash goes on after a bracket here, so that this file does not find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:work|root|home)/")


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    found = []
    for path in tracked_files():
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path}:{text.count(chr(10), 0, hit.start()) + 1}" for hit in MACHINE_PATH.finditer(text)]
    assert found == []


@pytest.mark.parametrize("path", [path for path in tracked_files() if path.suffix == ".toml"], ids=str)
def test_every_toml_file_decodes(path: Path) -> None:
    assert tomllib.loads((ROOT / path).read_text())
