"""A model's folder to a folder of another library's format, with the proof that both compute the same.

The proof runs in a process of its own, which loads the new folder with transformers alone. The folder appears under its
name, with `parity.json`, once the proof is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carnac import __version__
from carnac.core.errors import RunError
from carnac.jobs.models import OpenModel, open_model
from carnac.model.formats import FormatName
from carnac.model.new_folder import check_free, new_folder

if TYPE_CHECKING:
    from carnac.model.formats.description import Description

PARITY_FILE = "parity.json"
# transformers' IdeficsProcessor ends a document at the end token and lets nothing behind it read a picture before it.
END_BETWEEN_TURNS = (
    "answers end with {end}, and behind it transformers' processor lets no token read a picture before it: in a "
    "conversation of several turns carnac does, so show the picture again, or pass image_attention_mask yourself"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An export and what was found of it; `parity` is the content of `parity.json`."""

    folder: Path
    parity: dict[str, Any]


def export_model(folder: Path, name: FormatName, out: Path) -> Exported:
    """Write the model of `folder` into `out` in format `name`, prove it, and return what was found.

    Raises InputError where the format cannot express the model or `out` is taken, RunError where the proof fails: then
    the folder is kept under another name, with the figures.
    """
    check_free(out)
    opened = open_model(folder)
    described = _describe(opened)  # adapters are merged here
    notes = list(_notes(opened, name))
    with new_folder(out) as partial, tempfile.TemporaryDirectory() as reference:
        skipped = _write(opened, described, name, partial, Path(reference))
        del opened  # the proof loads the model once more
        parity = {"carnac": __version__, "format": name, "too_long": skipped, **_prove(partial, Path(reference))}
        parity |= {"notes": notes} if notes else {}
        text = json.dumps(parity, indent=2) + "\n"
        (partial / PARITY_FILE).write_text(text, encoding="utf-8")
        if not parity["passed"]:
            failed = out.with_name(f"{out.name}.failed")
            shutil.rmtree(failed, ignore_errors=True)
            partial.rename(failed)
            raise RunError(
                f"{failed}: transformers computes something else: the logits differ by {parity['worst']:.1e} of their "
                f"scale, wanted at most {parity['tolerance']:.0e}; {PARITY_FILE} there has the figures of each prompt."
            )
    return Exported(folder=out, parity=parity)


def describe_export(exported: Exported) -> str:
    """Return what an export holds and what its proof found, in a few lines."""
    found = exported.parity
    compared = sum(each["positions"] for each in found["logits"])
    cases = ", ".join(each["case"] for each in found["logits"])
    greedy = [each for each in found["greedy"] if each["equal"]]
    lines = [
        f"{exported.folder}: {found['class']}, {found['parameters']:,} parameters",
        f"  logits         differ by at most {found['worst']:.1e} of their scale at {compared:,} positions ({cases})",
        f"  continuations  {len(greedy)} of {len(found['greedy'])} equal, {found['ties']} parted at a tie",
        *_inputs(found["processor"]),
    ]
    if found["too_long"]:
        lines.append(f"  left out       {', '.join(found['too_long'])}: longer than the model's longest position")
    return "\n".join([*lines, *(f"  note           {note}" for note in found.get("notes", ()))])


def _notes(opened: OpenModel, name: FormatName) -> Iterator[str]:
    """Yield what a user of the export must know that no figure of the proof says."""
    from carnac.sequence.conversation import stop_ids

    words = opened.tokenizer
    if name == "idefics" and opened.inputs.conversations and stop_ids(words) == (words.end,):
        yield END_BETWEEN_TURNS.format(end=words.roles.end)


def _inputs(prompts: list[dict[str, Any]]) -> Iterator[str]:
    parted = [each["prompt"] for each in prompts if not each["ids_equal"]]
    yield "  processor      ids " + (f"DIFFER for {', '.join(parted)}" if parted else "equal")
    others = [each["prompt"] for each in prompts if not each.get("images_read_equal", True)]
    if others:
        yield f"                 tokens read OTHER pictures in {', '.join(others)}"
    pixels = [each for each in prompts if "pixels_same_shape" in each]
    if any(not each["pixels_same_shape"] for each in pixels):
        yield "                 pictures are cut into OTHER squares"
    elif pixels:
        largest = max(each["pixels_max_difference"] for each in pixels)
        mean = max(each["pixels_mean_difference"] for each in pixels)
        yield f"                 pixels differ by at most {largest:.2g}, {mean:.2g} on average, normalised"


def _describe(opened: OpenModel) -> Description:
    from carnac.model.adapters import merge_adapters
    from carnac.model.formats.description import describe_model

    if opened.model.settings.adapters is not None:
        merge_adapters(opened.model)
    return describe_model(opened.model, opened.inputs.pictures)


def _write(opened: OpenModel, described: Description, name: FormatName, out: Path, reference: Path) -> list[str]:
    from carnac.model.formats.folders import SpecialIds, write_folder
    from carnac.model.formats.processor import write_processor
    from carnac.model.formats.reference import write_reference

    words = opened.tokenizer
    ids = SpecialIds(image=words.image, begin=words.begin, end=words.end, pad=words.pad)
    model = opened.model.float().eval()
    write_folder(model, described, name, ids, out)
    write_processor(described, name, words, out, conversations=opened.inputs.conversations)
    return write_reference(model, words, opened.inputs.pictures, reference)


def _prove(folder: Path, reference: Path) -> dict[str, Any]:
    """Run the other side of the proof in a fresh interpreter that fetches nothing."""
    command = [sys.executable, "-m", "carnac.model.formats.proof", str(folder), str(reference)]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env={**os.environ, **offline}, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise RunError(f"transformers cannot use the exported folder: {last}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
