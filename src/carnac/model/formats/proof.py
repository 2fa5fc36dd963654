"""transformers' side of the proof, in a process of its own: `python -m carnac.model.formats.proof FOLDER REFERENCE`.

Loads an exported FOLDER with the Auto classes, no code of the folder or of ours in between, and compares with REFERENCE
(`model.formats.reference`): logits of each prompt alone, padded side by side, and packed in one row; greedy
continuations; the processor's ids and pixels. Prints the findings as one JSON object. Nothing is fetched.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from carnac.core.batch import IGNORED
from carnac.model.formats.proof_inputs import compare_pixels, image_mask, packed_mask, picture_keywords

JSON_FILE, TENSORS_FILE = "reference.json", "reference.safetensors"
TOLERANCE = 1e-5  # of the logits' scale, the largest of them; float32 in another order of sums differs by 1e-7 to 1e-6
TIE = 1e-4  # two logits nearer than this may change places
Found = dict[str, Any]


def prove(folder: Path, reference: Path) -> Found:
    """Return what was compared and how much it differs; `passed` says whether within the tolerances."""
    import torch
    import transformers
    from safetensors.torch import load_file
    from transformers import AutoModelForImageTextToText, AutoProcessor

    auto: Any = AutoModelForImageTextToText  # transformers is untyped
    model = auto.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    processors: Any = AutoProcessor
    processor = processors.from_pretrained(folder, local_files_only=True)
    described = json.loads((reference / JSON_FILE).read_text(encoding="utf-8"))
    tensors = load_file(reference / TENSORS_FILE)
    with torch.inference_mode():
        logits = [_compare(model, case, tensors) for case in described["cases"]]
        greedy = [_continue(model, prompt, tensors) for prompt in described["prompts"]]
    inputs = [_process(processor, prompt, tensors, reference) for prompt in described["prompts"]]
    worst = max(found["relative"] for found in logits)
    return {
        "class": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "precision": "float32",
        "tolerance": TOLERANCE,
        "worst": worst,
        "logits": logits,
        "greedy": greedy,
        "ties": sum(found["tie"] for found in greedy),
        "processor": inputs,
        "passed": worst <= TOLERANCE and all(found["equal"] or found["tie"] for found in greedy),
    }


def _compare(model: Any, case: Found, tensors: dict[str, Any]) -> Found:
    if case["kind"] == "padded":
        return _compare_padded(model, case, tensors)
    name = case["name"]
    logits = model(
        input_ids=tensors[f"{name}/input_ids"],
        position_ids=tensors[f"{name}/positions"],
        attention_mask=packed_mask(model, tensors[f"{name}/positions"]),  # None: packed where positions begin again
        use_cache=False,
        **_pictures(model, [name], tensors),
    ).logits[0]
    return _difference(name, logits[tensors[f"{name}/kept"]], tensors[f"{name}/logits"])


def _compare_padded(model: Any, case: Found, tensors: dict[str, Any]) -> Found:
    import torch

    ids, lengths = tensors["padded/input_ids"], tensors["padded/lengths"]
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    told = _pictures(model, case["rows"], tensors)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **told).logits
    found = torch.cat([logits[row][tensors[f"{name}/kept"]] for row, name in enumerate(case["rows"])])
    return _difference("padded", found, torch.cat([tensors[f"{name}/logits"] for name in case["rows"]]))


def _pictures(model: Any, names: list[str], tensors: dict[str, Any]) -> Found:
    """Return what the class is told of the pictures of rows, one of `tensors` each."""
    reads = [tensors[f"{name}/reads"] for name in names]
    longest = max(len(each) for each in reads)
    return picture_keywords(model, [tensors[f"{name}/pixels"] for name in names], reads, longest)


def _difference(name: str, found: Any, wanted: Any) -> Found:
    largest, scale = float((found - wanted).abs().max()), float(wanted.abs().max())
    return {
        "case": name,
        "positions": len(wanted),
        "max_difference": largest,
        "scale": scale,
        "relative": largest / scale if scale else largest,
    }


def _continue(model: Any, prompt: Found, tensors: dict[str, Any]) -> Found:
    import torch

    ids, wanted = tensors[f"{prompt['name']}/input_ids"], prompt["continuation"]
    model.generation_config.eos_token_id = None  # all tokens are wanted, whatever they are
    made = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=len(wanted),
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **_pictures(model, [prompt["name"]], tensors),
    )
    found = made.sequences[0, ids.shape[1] :].tolist()
    first = next((place for place, (one, two) in enumerate(zip(found, wanted, strict=True)) if one != two), None)
    margin = None
    if first is not None:
        top = made.logits[first][0].topk(2).values
        margin = float(top[0] - top[1])
    return {
        "prompt": prompt["name"],
        "tokens": len(wanted),
        "equal": first is None,
        "first_difference": first,
        "margin": margin,
        "tie": margin is not None and margin < TIE,
    }


def _process(processor: Any, prompt: Found, tensors: dict[str, Any], reference: Path) -> Found:
    """Compare what transformers' own processor makes of the text and the picture files."""
    from PIL import Image

    name, shown = prompt["name"], [Image.open(reference / file) for file in prompt["pictures"]]
    if type(processor).__name__ == "IdeficsProcessor":  # takes texts and pictures in one list
        left = iter(shown)
        made = processor(text=[[next(left) if part is None else part for part in prompt["parts"]]], return_tensors="pt")
    else:
        made = processor(text=[prompt["text"]], images=shown or None, return_tensors="pt")
    ids, wanted = made["input_ids"][0].tolist(), tensors[f"{name}/input_ids"][0].tolist()
    longest = max(len(ids), len(wanted))
    pairs = zip(ids + [IGNORED] * (longest - len(ids)), wanted + [IGNORED] * (longest - len(wanted)), strict=True)
    first = next((place for place, (one, two) in enumerate(pairs) if one != two), None)
    found: Found = {"prompt": name, "ids_equal": first is None, "first_difference": first}
    if "image_attention_mask" in made and first is None:
        mask = image_mask([tensors[f"{name}/reads"]], len(shown), longest)
        found["images_read_equal"] = bool((made["image_attention_mask"].bool() == mask).all())
    return found | (compare_pixels(made, tensors[f"{name}/pixels"], prompt["patch_px"]) if shown else {})


if __name__ == "__main__":
    print(json.dumps(prove(Path(sys.argv[1]), Path(sys.argv[2]))))
