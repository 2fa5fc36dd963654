"""A template of this folder and its values -> a page that needs no other file, written whole or not at all."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import jinja2

from carnac.core.errors import InputError
from carnac.engine.storage import write_file
from carnac.serve.terminal import printable


def render_template(name: str, **values: object) -> str:
    """Return the page of a template as HTML. Everything that came from the web is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: printable(value) if isinstance(value, str) else value,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment.get_template(name).render(**values)


def _source(name: str) -> str:
    return resources.files("carnac.report").joinpath(name).read_text("utf-8")


def write_html(html: str, out: Path) -> None:
    """Write a page. Raises InputError where its folder does not exist."""
    if not out.parent.is_dir():
        raise InputError(f"{out}: its folder does not exist. Create {out.parent} or choose another file.")
    write_file(out, html.encode(errors="replace"))
