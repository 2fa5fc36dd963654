"""Real pages, crawled and curated by the jobs, of which a funnel is drawn."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from jobs_crawls import CrawlHere

from carnac.engine.manifest import Manifest, read_manifest
from carnac.engine.progress import TerminalReporter
from carnac.engine.run import Runner
from carnac.jobs import curate
from carnac.jobs.curate_funnel import FUNNEL, PassTables, draw_funnel
from carnac.jobs.curate_passes import AnyPass

DATA = Path(__file__).parents[2] / "recipes/tiny/data"
PASSES = [
    {
        "name": "blocks",
        "kind": "rules",
        "rules": [
            {"on": "text", "signal": "num_words", "min": 3, "kinds": ["paragraph"]},
            {"on": "text", "signal": "special_character_ratio", "max": 0.6},
        ],
    },
    {"name": "pages", "kind": "rules", "rules": [{"on": "document", "signal": "num_words", "min": 100, "max": 2000}]},
    {"name": "repeats", "kind": "repeats", "by": ["url", "text"]},
]


@dataclasses.dataclass(frozen=True, slots=True)
class Curated:
    """Two parts of real pages, with what the job curate made of them."""

    folder: Path
    steps: tuple[AnyPass, ...]

    @property
    def documents(self) -> Manifest:
        return read_manifest(self.folder / "documents")

    def draw(self, out: Path, *, workers: int = 2, order: Sequence[int] = (0, 1)) -> dict[str, Any]:
        """Draw the funnel to `out` and return it."""

        def shuffled(manifest: Manifest) -> Manifest:
            return dataclasses.replace(manifest, parts=tuple(manifest.parts[place] for place in order))

        curated = self.folder / "curated"
        masks = [shuffled(read_manifest(curated / "masks" / step.name)) for step in self.steps]
        passes = [
            PassTables(step=step, images=None, kept=None, masks=each)
            for step, each in zip(self.steps, masks, strict=True)
        ]
        runner = Runner(reporter=TerminalReporter(io.StringIO()), workers=workers)
        draw_funnel(runner, passes, shuffled(self.documents), shuffled(read_manifest(curated / "signals")), out)
        content: dict[str, Any] = json.loads((out / FUNNEL).read_bytes())
        return content


def curate_sample(folder: Path) -> Curated:
    """Crawl the first pages of both archives of the sample into `folder`, and curate them, in this process."""
    here = CrawlHere(output=folder / "documents")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("carnac.engine.run.run_units", here.run_units)
        here(warcs=[str(path) for path in sorted(DATA.glob("*.warc.gz"))], limit=25)
        fields = {
            "job": "curate",
            "documents": str(folder / "documents"),
            "output": str(folder / "curated"),
            "pass": PASSES,
        }
        recipe = curate.CurateRecipe.model_validate_json(json.dumps(fields))
        curate.run(recipe, Runner(reporter=TerminalReporter(io.StringIO())))
    return Curated(folder, recipe.passes)
