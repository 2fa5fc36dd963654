"""Models to and from a folder: `config.json` (what to build) and `model.safetensors` (the weights).

Nothing is unpickled. Each file is written beside its place and renamed, the weights first, so that a folder with a new
`config.json` has its weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from carnac.core.errors import InputError
from carnac.engine.storage import open_to_others, temporary_path
from carnac.model.adapters import add_adapters
from carnac.model.added_tokens import add_tokens, added_ids_of, base_rows
from carnac.model.build import join
from carnac.model.language import language_from_config
from carnac.model.multimodal import MultimodalModel, freeze
from carnac.model.settings import ModelSettings
from carnac.model.towers import make_config, own_fields, stored_fields
from carnac.model.vision import vision_from_config

FORMAT = "carnac-model-1"
ADAPTERS_FORMAT = "carnac-adapters-1"  # a model without its backbones: `adapter_files`
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_model(model: MultimodalModel, folder: Path) -> None:
    """Write `model` into `folder`, which is made where missing; other files there are left alone."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored_tensors(model).items()}
    config = {
        "format": FORMAT,
        "settings": model.settings.model_dump(mode="json"),
        "vision": {"model_type": model.vision.config.model_type, **stored_fields(model.vision.config)},
        "language": {"model_type": model.language.config.model_type, **stored_fields(model.language.config)},
        "added_tokens": {"ids": added_ids_of(model.language), "base_rows": base_rows(model.language)},
        "tokens_per_image": model.tokens_per_image,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
    text = json.dumps(config, indent=2) + "\n"
    _write_whole(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    _write_whole(folder / CONFIG_FILE, lambda path: path.write_text(text, encoding="utf-8"))


def load_model(folder: Path) -> MultimodalModel:
    """Return the model of a folder, ready for generation; raise InputError naming the file that is missing or wrong."""
    config = read_config(folder / CONFIG_FILE, FORMAT, "a carnac model")
    try:
        settings = ModelSettings.model_validate_json(json.dumps(config["settings"]))
        # The weights are overwritten below; the caller's random state is not to move.
        with torch.random.fork_rng(devices=[]):
            vision = vision_from_config(_configuration(config["vision"]))
            language = _language(config["language"], config.get("added_tokens"))
            model = join(settings, vision, language)
            freeze(model, settings.trained)
            add_adapters(model)
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError, InputError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{folder / CONFIG_FILE}: not a model that carnac can build: {detail}") from error
    load_weights(model, folder)
    return model.eval()


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copy the weights of `folder` into `model`; raise InputError unless names and shapes are exactly the model's."""
    path = folder / WEIGHTS_FILE
    found = read_tensors(path, f"the folder of a model holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    wanted = stored_tensors(model)
    missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if missing or unknown:
        example = (missing or unknown)[0]
        raise InputError(
            f"{path}: weights of another model: {len(missing)} missing, {len(unknown)} unknown, first {example}"
        )
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            got, want = tuple(found[name].shape), tuple(tensor.shape)
            raise InputError(f"{path}: weights of another model: {name} has shape {got}, wanted {want}")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(found[name])


def stored_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and persistent buffers by name, each once: tied weights go by their first name."""
    twice = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    twice -= {name for name, _ in model.named_parameters()}
    return {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name not in twice}


def _language(fields: dict[str, Any], added: dict[str, Any] | None) -> Any:
    added = added or {"ids": [], "base_rows": fields["vocab_size"]}
    rows, pad = int(added["base_rows"]), fields.get("pad_token_id")
    told = {**fields, "vocab_size": rows}
    if pad is not None and pad >= rows:  # a table without the added rows knows no padding token that is one of them
        told["pad_token_id"] = None
    language = language_from_config(_configuration(told))
    language.config.pad_token_id = pad
    add_tokens(language, added["ids"])
    return language


def _configuration(fields: dict[str, Any]) -> Any:
    fields = dict(fields)
    model_type = fields.pop("model_type")
    unknown = sorted(fields.keys() - own_fields(model_type))
    if unknown:
        raise ValueError(f"{model_type} has no field {unknown[0]!r}")
    return make_config(model_type, fields)


def read_config(path: Path, form: str, what: str) -> dict[str, Any]:
    """Return a JSON object whose `format` is `form`; raise InputError, which says `what` it should be, for all else."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is {path.parent} {what}?") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(config, dict) or config.get("format") != form:
        got = config.get("format") if isinstance(config, dict) else type(config).__name__
        hint = "; carnac merge makes a model of it" if got == ADAPTERS_FORMAT else ""
        raise InputError(f"{path}: not {what}: format is {got!r}, wanted {form!r}{hint}")
    return config


def read_tensors(path: Path, wanted: str) -> dict[str, torch.Tensor]:
    """Return a safetensors file's tensors; raise InputError where it is damaged or missing (`wanted` says more)."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise InputError(f"{path}: missing; {wanted}")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: damaged or not a safetensors file ({error})") from error
    return tensors


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    partial = temporary_path(path)
    try:
        write(partial)
        open_to_others(partial)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
