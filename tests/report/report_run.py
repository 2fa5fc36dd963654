"""A small run on disk, written with the engine's own parts: three pages, one of them hostile, down to the chat."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from carnac.core.document import Document, ImageNode
from carnac.core.schema import DOCUMENTS, IMAGES, MASKS, REPEATS, SAMPLES, document_to_row
from carnac.engine.manifest import Manifest, collect_parts, write_manifest
from carnac.engine.part import Part
from carnac.engine.unit import Stage
from carnac.jobs.chat import CHAT
from carnac.jobs.evaluate import EVALUATION
from carnac.jobs.plan import VOCABULARY
from carnac.jobs.train import MODEL
from carnac.mix.plan import PIECES, PLAN

SCHEMAS: dict[str, pa.Schema] = {
    "documents": DOCUMENTS,
    "images": IMAGES,
    "masks": MASKS,
    "repeats": REPEATS,
    "shards": SAMPLES,
    "tokenizer": VOCABULARY,
    "pieces": PIECES,
    "plan": PLAN,
    "model": MODEL,
    "evaluation": EVALUATION,
    "chat": CHAT,
}
SCRIPT = "<script>alert('owned')</script>"
ESCAPE = "\x1b]0;owned\x07\x1b[31m\x9b2J"
BREAK_OUT = "\"'><img src=x onerror=alert(1)>"
REASONS = ["image_missing", "text.num_words < 3 [paragraph]", "document.num_images < 1"]


def write_stage(
    folder: Path,
    stage: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    counts: Mapping[str, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    lost: Sequence[tuple[str, str, str]] = (),
    schema: pa.Schema | None = None,
) -> None:
    """Write a finished stage of one part."""
    kind = Stage(name=stage, version=1, schema=schema or SCHEMAS[stage], work=None)
    unit = kind.unit("00000-a", None, settings=settings or {}, inputs=[])
    folder.mkdir(parents=True, exist_ok=True)
    with Part(kind, unit, folder) as part:
        for row in rows:
            part.write(dict(row))
        for name, number in (counts or {}).items():
            part.count(name, number)
        for record in lost:
            part.quarantine(*record)
    entries = collect_parts(folder, [unit])
    write_manifest(
        Manifest(folder=folder, stage=stage, version=1, settings=dict(settings or {}), inputs={}, parts=entries)
    )


def picture(colour: str = "teal", size: tuple[int, int] = (60, 40)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def page(name: str, url: str, title: str | None, blocks: Sequence[tuple[str, str]]) -> Document:
    return Document(
        id=name,
        url=url,
        warc_file="a.warc.gz",
        warc_offset=7,
        fetched_at="2026-01-01T00:00:00Z",
        title=title,
        language="en",
        language_score=0.9,
        texts=tuple(None if kind == "image" else text for kind, text in blocks),
        images=tuple(text if kind == "image" else None for kind, text in blocks),
        kinds=tuple(kind for kind, _ in blocks),  # type: ignore[misc] # the kinds of a test are right
        image_nodes=tuple(ImageNode() if kind == "image" else None for kind, _ in blocks),
    )


PAGES = [
    page(
        "d0",
        "https://example.org/mill",
        "The mill",
        [
            ("heading", "The old mill"),
            ("paragraph", "It turns in the evening."),
            ("image", "https://example.org/mill.png"),
            ("code", "for day in week:\n    turn()"),
            ("quote", "Water is patient."),
            ("caption", "x"),
        ],
    ),
    page(
        "d1",
        "javascript:alert(1)",
        SCRIPT + BREAK_OUT,
        [
            ("heading", SCRIPT),
            ("paragraph", f"{BREAK_OUT} {ESCAPE} [red]not a style[/red] :smile: {{{{ 7 * 7 }}}}"),
            ("image", f"javascript:alert(2){BREAK_OUT}"),
        ],
    ),
    page("d2", "https://example.org/text", None, [("paragraph", "Only text here.")]),
]


def sample(document: Document, image: bytes) -> dict[str, Any]:
    kept = [n for n, kind in enumerate(document.kinds) if kind != "caption"]
    urls = [document.images[n] for n in kept]
    facts = {"url": document.url, "title": document.title, "image_urls": urls}
    return {
        "id": document.id,
        "source": "test",
        "texts": [document.texts[n] for n in kept],
        "images": [None if url is None else {"bytes": image, "path": "a.png"} for url in urls],
        "roles": [None] * len(kept),
        "metadata": json.dumps(facts),
    }


def mask(document: Document) -> dict[str, Any]:
    keep_block = [kind != "caption" for kind in document.kinds]
    keep = document.id != "d2"
    return {
        "id": document.id,
        "keep": keep,
        "reason": None if keep else 2,
        "keep_block": keep_block,
        "block_reason": [None if kept else 1 for kept in keep_block],
    }


def write_documents(folder: Path) -> None:
    lost = [("a.warc.gz@99", "page_too_large", f"10 MB {SCRIPT} {ESCAPE}")]
    counts = {"pages": 4, "documents": 3}
    write_stage(folder / "documents", "documents", [document_to_row(p) for p in PAGES], counts=counts, lost=lost)


def write_images(folder: Path) -> None:
    dropped: dict[str, Any] = dict.fromkeys(IMAGES.names)
    rows = [
        {**dropped, "url": "https://example.org/mill.png", "status": "kept", "width": 60, "height": 40, "length": 900},
        {**dropped, "url": f"javascript:alert(2){BREAK_OUT}", "status": "kept", "width": 61, "height": 40},
        *(
            {**dropped, "url": f"https://example.org/gone{n}.png", "status": "dropped", "reason": "not_in_archive"}
            for n in range(2)
        ),
    ]
    counts = {"kept": 2, "dropped.not_in_archive": 2}
    write_stage(folder / "images", "images", rows, counts=counts, lost=[("a@1", "second_record_of_url", "again")])


def write_curated(folder: Path) -> None:
    # The last pass of the recipe comes first by name and by time: only the funnel knows their order.
    for name in ("a_last", "z_first"):
        settings = {"pass": {"name": name}, "reasons": REASONS}
        write_stage(folder / "curated" / "masks" / name, "masks", [mask(p) for p in PAGES], settings=settings)
    whole = {"documents": 3, "text_blocks": 8, "words": 30, "images": 2}
    grave = {"id": "d1", "url": "javascript:alert(1)", "excerpt": f"{SCRIPT} {ESCAPE}"}
    nothing = {"documents": 0, "text_blocks": 0, "words": 0, "images": 0}
    steps = [
        {"name": "(input)", "kept": whole, "taken": []},
        {
            "name": "z_first",
            "kept": {**whole, "text_blocks": 7, "words": 29},
            "taken": [
                {"reason": REASONS[1], "amount": {**nothing, "text_blocks": 1, "words": 1}, "samples": [grave]},
                {"reason": REASONS[0], "amount": nothing, "samples": []},
            ],
        },
        {"name": "a_last", "kept": {**whole, "documents": 2}, "taken": []},
    ]
    (folder / "curated" / "funnel.json").write_text(json.dumps({"steps": steps}))


def write_shards(folder: Path) -> None:
    train = [sample(PAGES[0], picture()), sample(PAGES[1], picture("maroon"))]
    write_stage(folder / "shards" / "train", "shards", train, counts={"samples": 2})
    write_stage(folder / "shards" / "heldout", "shards", [sample(PAGES[0], picture())], counts={"samples": 1})


def step_row(step: int) -> dict[str, Any]:
    names = ("learning_rate", "gradient_norm", "seconds", "waiting_seconds")
    counts = {"label_tokens": 90, "tokens": 100, "images": 1, "pieces": 2}
    return {"step": step, "loss": 5.0 - 0.25 * step, **dict.fromkeys(names, 0.5), **counts}


def write_metrics(folder: Path, steps: int = 9) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(step_row(step)) + "\n" for step in range(steps)))


def write_model_files(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    towers = {"vision": {"model_type": "siglip_vision_model"}, "language": {"model_type": "llama"}}
    config = {"format": "carnac-model-1", **towers, "parameters": 1_234_567, "tokens_per_image": 4}
    (folder / "config.json").write_text(json.dumps(config))


def write_model(folder: Path) -> None:
    write_metrics(folder / "model")
    write_model_files(folder / "model")
    rows = [{name: step_row(step).get(name) for name in MODEL.names} for step in range(9)]
    write_stage(folder / "model", "model", rows, counts={"parameters": 1_234_567})


def write_evaluation(folder: Path) -> None:
    rows = [
        {"id": f"e{n}", "images": 1, "tokens": 10 * n, "right": 30.0 * n, "shuffled": 31.0 * n + 1, "none": 32.0 * n}
        | {"all_tokens": 20 + 10 * n, "all_loss": 100.0}
        for n in range(3)
    ]
    write_stage(folder / "evaluation", "evaluation", rows)
    gain = {"estimate": 0.01, "low": 0.001, "high": 0.02}
    verdict = "The model looks at its images: other images cost it +0.0100 (95 % interval [+0.0010, +0.0200] ...)."
    content = {"documents": 2, "tokens": 30, "loss": 3.0, "losses": {"right": 3.0, "shuffled": 3.01, "none": 3.2}}
    content |= {"gains": {"shuffled": gain, "none": gain}, "verdict": verdict}
    (folder / "evaluation" / "evaluation.json").write_text(json.dumps(content))


def write_chat(folder: Path) -> None:
    prompts = [("d0", "What is shown?", "A mill."), ("d1", SCRIPT, f"{BREAK_OUT}{ESCAPE}")]
    rows = [
        {"id": name, "image": picture(), "prompt": prompt, "continuation": said, "reference": SCRIPT}
        for name, prompt, said in prompts
    ]
    write_stage(folder / "chat", "chat", rows, counts={"prompts": 2})


def write_others(folder: Path) -> None:
    repeat = {"kind": "url", "key": "k", "id": "d1", "unit": "00000-a", "row": 1, "root": "d0"}
    write_stage(folder / "curated" / "repeats" / "repeats", "repeats", [repeat, {**repeat, "id": "d2"}])
    write_stage(folder / "plan" / "tokenizer", "tokenizer", [{"id": n, "token": f"t{n}"} for n in range(300)])
    piece = {"source": "test", "shard": "00000-a", "row": 0, "start": 0, "stop": 50, "images": 1}
    write_stage(folder / "plan" / "pieces", "pieces", [{**piece, "labels": 40}] * 3)
    row = {"epoch": 0, "tokens": 50, "images": 1, "labels": 40, "pieces": [piece]}
    write_stage(folder / "plan" / "rows", "plan", [row] * 4, counts={"fill_per_mille": 700})


def write_run(folder: Path) -> Path:
    """Write a whole run and return its folder."""
    writers = (write_documents, write_images, write_curated, write_shards, write_others, write_model)
    for write in (*writers, write_evaluation, write_chat):
        write(folder)
    return folder
