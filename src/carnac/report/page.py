"""A run's whole story as one self-contained page: pages in, what each rule took, documents, losses, answers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from carnac import __version__
from carnac.core.places import Place
from carnac.engine.tables import read_rows
from carnac.report.curation import is_curation
from carnac.report.curation_page import render_curation
from carnac.report.images import ends_of
from carnac.report.images_page import image_folders
from carnac.report.images_thumbnails import kept_thumbnails, taken_by_rules
from carnac.report.pictures import thumbnail
from carnac.report.questions import accuracies, confusion, some_answers
from carnac.report.reading import readable_conversations, readable_documents
from carnac.report.samples import has_turns, samples
from carnac.report.slowest import slowest
from carnac.report.story import Story, read_story
from carnac.report.template import render_template, write_html
from carnac.report.training_page import other_runs, training_runs

NUM_STRIPS = 24
NUM_THUMBNAILS = 48
NUM_DOCUMENTS = 3
NUM_ANSWERS = 8
NUM_CONVERSATIONS = 3  # of each source


def write_page(folder: Place, out: Path) -> None:
    """Write the page of `folder` whole or not at all: of a curate recipe's folder that of its funnel."""
    story = read_story(folder)
    write_html(render_curation(story.funnel, str(folder)) if is_curation(story) else render(story), out)


def render(story: Story) -> str:
    """Return the page as HTML. Everything that came from the web is escaped."""
    return render_template(
        "page.html.j2",
        version=__version__,
        folder=str(story.folder),
        title=_title(story),
        tiles=_tiles(story),
        strips=_strips(story),
        thumbnails=_thumbnails(story),
        has_shards=bool(story.find("shards")),
        images=_image_reasons(story),
        image_folders=image_folders(story),
        taken=taken_by_rules(story),
        under_way=[{"what": f"{found.title}: {found.what}", "units": found.units} for found in story.under_way],
        lost=story.lost,
        slowest=[unit for folder in story.folders for unit in slowest(folder)],
        funnel=_funnel(story),
        documents=readable_documents(story, NUM_DOCUMENTS),
        conversations=readable_conversations(story, NUM_CONVERSATIONS),
        runs=training_runs(story),
        other_runs=other_runs(story),
        evaluation=story.evaluation,
        differences=_differences(story),
        questions=[
            {"name": name, "found": found, "table": accuracies(found), "confusion": confusion(story.folder / name)}
            for name, found in story.questions
        ],
        answers=some_answers(story, NUM_ANSWERS),
        chats=_chats(story),
    )


def _title(story: Story) -> str:
    """Return what the folder as a whole is."""
    stages = {folder.stage for folder in story.folders}
    kinds = samples(story, 1)
    titles = (
        ("From crawl to chat", bool(stages & {"documents", "signals", "masks", "images", "repeats"})),
        ("A training run", bool(story.trainings)),
        ("Questions about pictures", bool(story.questions)),
        ("Conversations", bool(kinds) and all(has_turns(rows[0]) for rows in kinds)),
    )
    return next((title for title, is_it in titles if is_it), "What is there")


def _tiles(story: Story) -> list[tuple[str, str]]:
    """Return the figures at the top: (figure, what it counts)."""
    counted = (
        ("documents", "pages", "pages read"),
        ("documents", "documents", "documents"),
        ("images", "kept", "images kept"),
    )
    tiles = [
        (f"{manifest.counts.get(count, 0):,}", name)
        for stage, count, name in counted
        for manifest in story.find(stage)[:1]
    ]
    tiles += [(f"{manifest.rows:,}", f"samples, {manifest.folder.name}") for manifest in story.find("shards")]
    if story.model:
        tiles.append((f"{story.model['parameters'] / 1e6:.1f} M", "parameters"))
    for training in story.trainings[:1]:
        tiles.append((f"{sum(len(stage.series) for stage in training.stages):,}", "steps"))
        losses = training.current.series.losses()[1]
        if len(losses):
            tiles.append((f"{losses[0]:.2f} \u2192 {training.current.mean_loss():.2f}", "training loss"))
    return tiles


def _strips(story: Story) -> list[dict[str, Any]]:
    """Return pages as strips: kind and size of every block, in reading order; spread over the first 200 pages."""
    strips = []
    rows = story.rows("documents", 200, ["title", "url", "kinds", "texts"])
    for row in rows[:: max(1, len(rows) // NUM_STRIPS)][:NUM_STRIPS]:
        blocks = [
            (kind, 1.0 if text is None else max(0.4, min(8.0, len(text) / 120)))
            for kind, text in zip(row["kinds"], row["texts"], strict=True)
        ]
        strips.append({**row, "blocks": blocks[:160]})
    return strips


def _thumbnails(story: Story) -> list[str]:
    found: dict[bytes, str] = {}
    for manifest in story.find("shards"):
        for part in manifest.parts:
            for row in read_rows(part.path, ["images"]):
                for image in row["images"]:
                    if len(found) == NUM_THUMBNAILS:
                        return list(found.values())
                    if image is not None and image["bytes"] not in found and (small := thumbnail(image["bytes"], 96)):
                        found[image["bytes"]] = small
    return list(found.values()) or kept_thumbnails(story, NUM_THUMBNAILS)


def _image_reasons(story: Story) -> list[tuple[str, int]]:
    """Return how many addresses were kept, dropped and deferred for each reason: those first that took most."""
    counts: Counter[str] = Counter()
    for manifest in story.find("images"):
        counts.update(ends_of(manifest))
    reasons = Counter({name: number for name, number in counts.items() if name != "kept"})
    named = [(name.replace(".", ": ", 1).replace("_", " "), number) for name, number in reasons.most_common()]
    return [("kept", counts["kept"]), *named] if counts else []


def _funnel(story: Story) -> list[dict[str, Any]]:
    """Return the steps with the share of documents, words and images still there: the widths of bars."""
    if not story.funnel:
        return []
    whole = story.funnel[0]["kept"]
    return [
        {
            **step,
            "shares": {name: 100 * step["kept"][name] / max(whole[name], 1) for name in whole},
            "taken": [
                {**taken, "amounts": _amounts(taken["amount"])}
                for taken in step["taken"]
                if any(taken["amount"].values())
            ],
        }
        for step in story.funnel
    ]


def _amounts(amount: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in amount.items() if number)


def _differences(story: Story) -> list[dict[str, Any]]:
    """Return, per held-out document, what shuffled images cost per token, sorted; for a row of dots."""
    rows = [row for row in story.rows("evaluation", 200) if row["tokens"]]
    values = sorted((row["shuffled"] - row["right"]) / row["tokens"] for row in rows)
    reach = max((abs(value) for value in values), default=0) or 1
    return [{"value": value, "at": 50 + 48 * value / reach} for value in values]


def _chats(story: Story) -> list[dict[str, Any]]:
    return [{**chat, "image": thumbnail(chat["image"], 320) if chat.get("image") else None} for chat in story.chats[:3]]
