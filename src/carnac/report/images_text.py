"""The images of a story as lines and tables for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from carnac.report.images import headline, read_images
from carnac.report.images_facts import facts
from carnac.report.images_table import State
from carnac.report.layout import WIDTH, figures_table, flat
from carnac.report.story import Story

NONE_YET = "no URL has its final state yet"


def images_text(story: Story, *, brief: bool = False) -> str:
    """Return what became of the images: a line for each folder, and everything where one folder alone is shown.

    When it is to be brief, a line is all.
    """
    folders = [folder for folder in story.folders if folder.stage == "images"]
    if len(folders) == 1 and len(story.folders) == 1 and not brief:
        images = read_images(folders[0])
        told = facts(images)
        lines = [_filled(f"images: {headline(folders[0].content) or NONE_YET}")] if told.lines or told.tables else []
        lines += [_filled(f"  {name}: {what}") for name, what in told.lines]
        tables = [f"{each.title}\n{textwrap.indent(figures_table(each.head, each.rows), '  ')}" for each in told.tables]
        return "\n\n".join(filter(None, ("\n".join(lines), *tables, "\n".join(_samples(images.table.states)))))
    told_of = [(folder.title, headline(folder.content)) for folder in folders]
    return "\n".join(_filled(f"{title if len(told_of) > 1 else 'images'}: {told}") for title, told in told_of if told)


def _filled(line: str) -> str:
    return textwrap.fill(line, WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _samples(states: Iterable[State]) -> Iterator[str]:
    for state in states:
        if state.samples:
            yield f"{state.status} {state.reason}, such as"
            yield from (f"  {flat(sample.url, 100)}  {flat(sample.detail, 100)}".rstrip() for sample in state.samples)
