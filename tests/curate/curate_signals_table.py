"""The table of all signals in docs/03-signals.md, drawn from the catalogue.

python tests/curate/curate_signals_table.py     writes it anew
"""

from __future__ import annotations

from pathlib import Path

from carnac.curate.signals.catalogue import CATALOGUE
from carnac.curate.signals.signal import Signal

PAGE = Path(__file__).parents[2] / "docs/03-signals.md"
BEGIN, END = "<!-- signals: from the catalogue -->\n", "<!-- end of signals -->\n"
HEAD = "| signal | on | unit | what | over | source |\n|---|---|---|---|---|---|\n"


def signals_table() -> str:
    """Return the table: a signal of several levels stands once where it says the same of them."""
    rows: dict[tuple[str, ...], list[Signal]] = {}
    for signal in CATALOGUE:
        rows.setdefault((signal.name, signal.unit, signal.description, signal.source), []).append(signal)
    return HEAD + "".join(_row(signals) for signals in rows.values())


def _row(signals: list[Signal]) -> str:
    first = signals[0]
    levels = ", ".join(signal.level for signal in signals)
    over = "".join(
        {"kept": "kept blocks", "page": "page"}[signal.over] for signal in signals if signal.over is not None
    )
    file = " (of its file)" if first.needs_file else ""
    return f"| `{first.name}` | {levels} | {first.unit} | {first.description}{file} | {over} | {first.source} |\n"


def parted(page: str) -> tuple[str, str, str]:
    """Return the page before the table, the table, and the page after it."""
    before, _, rest = page.partition(BEGIN)
    table, _, after = rest.partition(END)
    return before, table, after


if __name__ == "__main__":
    before, _, after = parted(PAGE.read_text("utf-8"))
    PAGE.write_text(f"{before}{BEGIN}{signals_table()}{END}{after}", "utf-8")
