"""The tiny data chain, crawl to shards, with its folders anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from story_runs import DATA, RECIPES, carnac


def write_recipes(folder: Path, output: str, warcs: str | None = None) -> list[str]:
    """Write the recipes 01 to 04 of `recipes/tiny` with their folders below `output`; return their paths."""
    folder.mkdir(exist_ok=True)
    warcs = warcs or f"{RECIPES}/data/skimage-*.warc.gz"
    for name in DATA:
        text = (RECIPES / name).read_text().replace("recipe://data/skimage-*.warc.gz", warcs)
        (folder / name).write_text(text.replace('"out/tiny', f'"{output}'))
    return [str(folder / name) for name in DATA]


def run_chain(folder: Path, recipes: list[str], *arguments: str, code: int = 0) -> str:
    """Run the chain by the command line, in `folder`."""
    return carnac(folder, "run", *recipes, *arguments, code=code)


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder by its name relative to it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def below(objects: Mapping[str, bytes], prefix: str) -> dict[str, bytes]:
    """Return the objects below a prefix by their key relative to it."""
    return {key.removeprefix(prefix): content for key, content in objects.items() if key.startswith(prefix)}


def stages_of(files: Mapping[str, bytes]) -> dict[str, list[tuple[str, str]]]:
    """Return unit and content digest of every part, by stage folder: equal for equal rows in equal order."""
    manifests = {name: json.loads(content) for name, content in files.items() if name.endswith("/manifest.json")}
    return {name: [(part["unit"], part["digest"]) for part in content["parts"]] for name, content in manifests.items()}


def packs_of(files: Mapping[str, bytes]) -> list[str]:
    """Return the digests of all packs, whatever their names."""
    return sorted(hashlib.sha256(content).hexdigest() for name, content in files.items() if name.endswith(".tar"))
