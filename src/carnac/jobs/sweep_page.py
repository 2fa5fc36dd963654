"""What a sweep came to -> one page of HTML that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1f2933}"
    "img{max-width:100%}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #e3e7eb}td:first-child,th:first-child"
    "{text-align:left}.rule{color:#5b6875}"
)


def page(summary: Mapping[str, Any], figure: bytes) -> str:
    """Return a page with the verdict, the figure (a PNG), the table and the rule."""
    picture = base64.b64encode(figure).decode()
    verdict = "".join(f"<li>{escape(sentence)}</li>" for sentence in summary["verdict"])
    head, body = summary["shown"]["head"], summary["shown"]["rows"]
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in body)
    said = "".join(f"<li>{escape(text)}</li>" for text in summary["measures"].values())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Sweep</title><style>{STYLE}</style>'
        f"<h1>{escape(' / '.join(summary['variants']))}</h1><ul>{verdict}</ul>"
        f'<img alt="What each run came to" src="data:image/png;base64,{picture}">'
        f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>{rows}</table>"
        f'<p class="rule">{escape(summary["rule"])}</p><ul class="rule">{said}</ul></html>\n'
    )
