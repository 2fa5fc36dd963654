"""`scripts/bench generation [--size large] [--pairs 15]`: tokens per second beside transformers.

Both answer the same prompts greedily with the same weights: carnac's model, and the `generate` of transformers' class
loaded from its export. Wanted: at least 0.97 times as fast, median of 15 interleaved pairs. The answers are compared
first. A few-shot case, in which carnac reads the examples once, says what that is worth; transformers reads them anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from model.inputs import random_prompt, their_inputs
from model.pairs import SIZES, Pair, make_pair, num_parameters
from model.pairwise import in_pairs, line
from turns import machine

from carnac.model.formats import NAMES
from carnac.model.generation.decoding import Decoding, read_prefix
from carnac.model.generation.prompt import Prompt, shared_beginning
from carnac.model.settings import GenerationSettings

GREEDY = GenerationSettings()
WANTED = 0.97


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Prompts that are answered together; `shared`: they begin with the same examples."""

    name: str
    lengths: tuple[int, ...]
    pictures: tuple[int, ...]
    shared: int = 0


CASES = (
    Case(name="one prompt", lengths=(120,), pictures=(1,)),
    Case(name="one long prompt", lengths=(1500,), pictures=(3,)),
    Case(name="8 prompts of 100 to 450 tokens", lengths=tuple(range(100, 451, 50)), pictures=(0, 1, 1, 1, 1, 2, 2, 2)),
    Case(name="8 questions after 1,000 tokens of examples", lengths=(80,) * 8, pictures=(1,) * 8, shared=1000),
)


def prompts_of(case: Case, pair: Pair) -> list[Prompt]:
    """Return the prompts of a case; where they would not hold their pictures, they are longer by them."""
    tokens, vocabulary = pair.ours.tokens_per_image, pair.ours.language.config.vocab_size
    shape = (tokens, pair.ours.image_size_px, vocabulary)
    prompts = [
        random_prompt(length + images * tokens, images, shape, seed=number)
        for number, (length, images) in enumerate(zip(case.lengths, case.pictures, strict=True))
    ]
    if not case.shared:
        return prompts
    examples = random_prompt(case.shared, 4 if 8 * tokens < case.shared else 1, shape, seed=99)
    return [_joined(examples, prompt) for prompt in prompts]


def _joined(first: Prompt, second: Prompt) -> Prompt:
    places = np.concatenate([first.places, second.places + len(first)])
    pixels = np.concatenate([first.pixels, second.pixels])
    return Prompt(ids=np.concatenate([first.ids, second.ids]), places=places, pixels=pixels)


def ours(pair: Pair, prompts: Sequence[Prompt], tokens: int, *, shared: bool) -> list[list[int]]:
    """Answer with carnac."""
    prefix = None
    if shared:
        length = shared_beginning(prompts, pair.ours.tokens_per_image)
        prefix = read_prefix(pair.ours, prompts[0].beginning(length))
    decoding = Decoding(pair.ours, prompts, GREEDY, prefix)
    steps = [decoding.step() for _ in range(tokens)]
    return [[step[number] for step in steps] for number in range(len(prompts))]


def theirs(pair: Pair, prompts: Sequence[Prompt], tokens: int) -> list[list[int]]:
    """Answer with transformers: as many tokens, whatever they are."""
    inputs = their_inputs(prompts, pair.theirs)
    if "pixel_values" in inputs:
        inputs["pixel_values"] = inputs["pixel_values"].to(next(pair.theirs.parameters()).dtype)
    found = pair.theirs.generate(**inputs, do_sample=False, eos_token_id=None, max_new_tokens=tokens)
    new: list[list[int]] = found[:, inputs["input_ids"].shape[1] :].tolist()
    return new


def measure(case: Case, pair: Pair, tokens: int, pairs: int) -> dict[str, object]:
    """Compare the answers of a case, time both, print a line and return the figures."""
    prompts = prompts_of(case, pair)
    way: Callable[[], list[list[int]]] = partial(ours, pair, prompts, tokens, shared=bool(case.shared))
    other = partial(theirs, pair, prompts, tokens)
    equal = sum(mine == yours for mine, yours in zip(way(), other(), strict=True))
    facts = in_pairs(way, other, pairs, pair.ours.device).facts()
    made = tokens * len(prompts)
    rates = {"ours_tokens_per_second": made / facts["ours_seconds"]}
    rates["theirs_tokens_per_second"] = made / facts["theirs_seconds"]
    print(f"{line(case.name, facts)}   {rates['ours_tokens_per_second']:.0f} tokens/s; equal {equal} of {len(prompts)}")
    return {"case": case.name, "equal": equal, "prompts": len(prompts), "new_tokens": tokens, **facts, **rates}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="generation", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--format", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of each prompt")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--out", type=Path, help="a file for the figures, as JSON")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    where = f"{machine()}, {asked.threads} threads" if asked.device == "cpu" else torch.cuda.get_device_name()
    print(f"{where}, torch {torch.__version__}; times as fast as transformers' generate, wanted at least {WANTED}")
    results: list[dict[str, object]] = []
    for name in asked.format:
        pair = make_pair(name, SIZES[asked.size], asked.device, getattr(torch, asked.dtype))
        print(f"== {asked.size}, {name}: {num_parameters(pair.ours) / 1e6:.1f} M parameters, {asked.dtype}")
        results += [{"format": name, **measure(case, pair, asked.tokens, asked.pairs)} for case in CASES]
    if asked.out:
        outcome = {"machine": where, "torch": torch.__version__, "size": asked.size, "results": results}
        asked.out.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
