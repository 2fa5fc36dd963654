"""A story as text for a terminal or a log: counts, samples, what was lost, funnel, losses, evaluation."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from carnac.core.places import Place
from carnac.engine.manifest import Manifest
from carnac.report.columns import MAX_ROWS, column_facts, some_rows
from carnac.report.curation import funnel_table, is_curation, samples_text
from carnac.report.folders import StageFolder
from carnac.report.images_text import images_text
from carnac.report.layout import WIDTH, rendered, shortened
from carnac.report.lost import NUM_SAMPLES
from carnac.report.model_text import folder_text
from carnac.report.questions import answers_text, questions_text
from carnac.report.samples import facts_of, image_names, samples
from carnac.report.slowest import slowest_text
from carnac.report.story import Story, read_story
from carnac.report.sweep import sweeps_text
from carnac.report.training_text import training_text
from carnac.serve.terminal import printable


def describe(folder: Place, *, brief: bool = False) -> str:
    """Return a readable view of whatever `folder` holds; a brief one leaves out the stages and the samples."""
    story = read_story(folder)
    images = images_text(story, brief=brief)
    figures = [funnel_table(story.funnel), model_text(story), training_text(story, brief=brief), evaluation_text(story)]
    figures.append(questions_text(story, brief=brief))
    figures.append(sweeps_text(story, brief=brief))
    alone = len(story.stages) == 1
    if brief:
        sections = [figures[0], images, *figures[1:], _chats(story, 1)]
    else:
        sections = [
            _stages(story),
            *("\n".join(found.lines(100 if alone else 5)) for found in story.under_way),
            *("\n".join(lost.lines(NUM_SAMPLES if alone else 1)) for lost in story.lost),
            slowest_text(story.folders),
            images,
            _columns(story.stages[0]) if alone else "",
            figures[0],
            samples_text(story.funnel, 2) if is_curation(story) else "",
            figures[1],
            folder_text(story.model_folder),
            *figures[2:],
            _samples(story, 3 if alone else 1) or (_rows(story.stages[0]) if alone else ""),
            answers_text(story, 6 if alone else 3),
            _chats(story, 3 if alone else 1),
        ]
    # What the web wrote must not steer the terminal.
    return printable("\n\n".join(section for section in sections if section)) or f"{folder}: nothing to sum up yet."


def _stages(story: Story) -> str:
    if not story.stages:
        return ""
    told = [folder for folder in story.folders if folder.status != "done"]
    table = Table("stage", "folder", *(["state"] if told else []), box=None, pad_edge=False)
    for name in ("rows", "MB", "units", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("counts", overflow="fold")
    for folder in story.folders:
        table.add_row(folder.stage, folder.name, *([folder.status] if told else []), *_figures(folder))
    return rendered(table)


def _figures(folder: StageFolder) -> Sequence[str]:
    content = folder.content
    # Counts by source are told with the training that they are for, by reason with the images and in the funnel.
    is_told = folder.stage in ("plan", "images", "masks")
    counts = {
        name: number
        for name, number in content.counts.items()
        if not name.startswith("lost.") and not (is_told and "." in name)
    }
    return (
        f"{content.rows:,}",
        f"{sum(part.total_bytes for part in content.parts) / 1e6:.2f}",
        f"{folder.num_parts:,}",
        f"{sum(part.seconds for part in content.parts):.1f}",
        " ".join(f"{name}={number:,}" for name, number in counts.items()),
    )


def _columns(manifest: Manifest) -> str:
    facts = list(column_facts(manifest))
    if not facts:
        return ""
    table = Table("column", box=None, pad_edge=False)
    table.add_column("values", justify="right")
    table.add_column("what they are" if manifest.rows <= MAX_ROWS else f"in the first {MAX_ROWS:,} rows")
    for name, number, what in facts:
        table.add_row(name, f"{number:,}", what)
    return rendered(table)


def _rows(manifest: Manifest) -> str:
    if manifest.stage in ("chat", "questions", "sweep"):
        return ""
    return "\n".join(textwrap.fill(row, WIDTH, subsequent_indent="  ") for row in some_rows(manifest, 3))


def model_text(story: Story) -> str:
    """Return what the model is made of, and how large it is."""
    if not story.model:
        return ""
    towers = " + ".join(str(story.model.get(name, {}).get("model_type")) for name in ("vision", "language"))
    pictures = f"{story.model.get('tokens_per_image')} tokens per picture"
    if story.model.get("settings", {}).get("family") == "cross_attention":
        pictures = "pictures read by cross-attention"
    return f"model: {towers}, {story.model.get('parameters', 0):,} parameters, {pictures}"


def evaluation_text(story: Story) -> str:
    """Return the evaluation line: the losses under the three conditions, the differences with their intervals."""
    found = story.evaluation
    if found is None:
        return ""
    if found.get("losses") is None:
        return f"evaluation: {found['verdict']}"
    gains = ", ".join(
        f"{name} images {gain['estimate']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
        for name, gain in found["gains"].items()
    )
    return (
        f"evaluation on {found['documents']} held-out documents, {found['tokens']:,} tokens after an image: "
        f"loss {found['losses']['right']:.4f} with the right images; {gains} (95 % intervals).\n{found['verdict']}"
    )


def _samples(story: Story, count: int) -> str:
    rows = [row for rows in samples(story, count) for row in rows] or story.rows("documents", count)
    return "\n\n".join(_sample(row) for row in rows)


def _sample(row: dict[str, Any]) -> str:
    told = facts_of(row)
    images = row["images"] if "metadata" not in row else image_names(row)
    lines = [f"sample {row['id']}  {row.get('url') or told.get('url') or told.get('title') or ''}".rstrip()]
    roles = row.get("roles") or [None] * len(row["texts"])
    for role, text, image in zip(roles, row["texts"], images, strict=True):
        said = f"[image {image}]" if text is None else shortened(text)
        lines.append(textwrap.indent(f"{role}: {said}" if role else said, "  "))
        if len(lines) > 12:
            lines.append("  ...")
            break
    return "\n".join(lines)


def _chats(story: Story, count: int) -> str:
    return "\n\n".join(
        f"prompt: {shortened(chat['prompt'])}\ngoes on: {shortened(chat['continuation'], 400)}"
        for chat in story.chats[:count]
    )
