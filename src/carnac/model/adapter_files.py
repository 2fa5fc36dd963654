"""Only what was trained, to and from a folder: megabytes beside backbones of gigabytes, which stay where they are.

    config.json              settings, vocabulary, side of the squares, and a digest of each backbone that is left out
    trained.safetensors      connector, rows of added tokens, and whatever else the folder of a backbone does not hold
    language/, vision/       adapters as peft saves them: its PeftModel loads them onto the same backbone

Nothing is unpickled. Reading needs the backbones' folders again and compares them with the digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from carnac.core.errors import InputError
from carnac.model.adapters import BACKBONES, Backbone, adapted_layers, adapter_parameters
from carnac.model.added_tokens import added_ids_of, added_parameters
from carnac.model.build import build_model
from carnac.model.language import Vocabulary, language_config
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ModelSettings
from carnac.model.towers import stored_fields, vision_config
from carnac.model.weights import ADAPTERS_FORMAT, CONFIG_FILE, read_config, read_tensors, stored_tensors

NOT_WHOLE = "the adapters' folder is not whole. Copy it again."
TRAINED_FILE = "trained.safetensors"
PEFT_CONFIG_FILE = "adapter_config.json"
PEFT_WEIGHTS_FILE = "adapter_model.safetensors"


def save_adapters(model: MultimodalModel, folder: Path) -> None:
    """Write to `folder`, which is made where missing, all of `model` but the frozen weights of trained backbones.

    Raises InputError where a backbone without a folder of its own could not be built again from the model's settings.
    """
    from safetensors.torch import save_file

    vocabulary = _vocabulary(model)
    _check_built(model, vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    left_out, own = _left_out(model), {id(parameter) for parameter in adapter_parameters(model)}
    tensors = stored_tensors(model)
    absent = {name for names in left_out.values() for name in names}
    kept = {name: each for name, each in tensors.items() if name not in absent and id(each) not in own}
    save_file({name: _plain(each) for name, each in kept.items()}, folder / TRAINED_FILE)
    for part in BACKBONES:
        adapters = {
            name.removeprefix(f"{part}."): each
            for name, each in tensors.items()
            if id(each) in own and name.startswith(f"{part}.")
        }
        if adapters:
            (folder / part).mkdir(exist_ok=True)
            save_file({_peft_name(name): _plain(each) for name, each in adapters.items()}, _peft_file(folder, part))
            config = {**getattr(model, part).peft_config["default"].to_dict(), **_where(model.settings, part)}
            _write_json(folder / part / PEFT_CONFIG_FILE, config)
    content = {
        "format": ADAPTERS_FORMAT,
        "settings": model.settings.model_dump(mode="json"),
        "vocabulary": asdict(vocabulary),
        "image_size_px": model.image_size_px,
        "native_aspect": model.native_aspect,
        "left_out": {part: _digest(tensors, names) for part, names in left_out.items()},
        # Training in bfloat16 rounds what is frozen; the backbone's own folder may hold more digits.
        "rounded": [part for part, names in left_out.items() if _is_rounded(tensors[name] for name in names)],
    }
    _write_json(folder / CONFIG_FILE, content)


def load_adapters(folder: Path, backbones: Mapping[Backbone, Path] | None = None) -> MultimodalModel:
    """Return the whole model of a folder, its backbones read from where they were or from `backbones`.

    Raises InputError naming what is missing, damaged, or not the backbone that the adapters were trained on.
    """
    content = read_config(folder / CONFIG_FILE, ADAPTERS_FORMAT, "a folder of adapters")
    try:
        settings = ModelSettings.model_validate_json(json.dumps(_moved(content["settings"], backbones or {})))
        fields = {**content["vocabulary"], "added_ids": tuple(content["vocabulary"]["added_ids"])}
        native, size_px = bool(content.get("native_aspect", False)), int(content["image_size_px"])
        model = build_model(settings, Vocabulary(**fields), size_px, seed=0, native_aspect=native)
        digests, rounded = dict(content["left_out"]), set(content.get("rounded", ()))
    except (KeyError, ValueError, TypeError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{folder / CONFIG_FILE}: not what carnac wrote: {detail}") from error
    tensors, left_out = stored_tensors(model), _left_out(model)
    for part, digest in digests.items():
        if part in rounded:
            _round(tensors[name] for name in left_out.get(part, set()))
        if _digest(tensors, left_out.get(part, set())) != digest:
            tower = getattr(settings, part)
            raise InputError(
                f"{folder}: the adapters were trained on another {part} backbone than the one in "
                f"{tower.folder or tower.hub}. Name the folder of the right one."
            )
    absent = {name for names in left_out.values() for name in names}
    _copy_into({name: each for name, each in tensors.items() if name not in absent}, folder, model)
    return model.eval()


def is_adapters(folder: Path) -> bool:
    """Say whether `folder` is one that `save_adapters` wrote."""
    try:
        content = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get("format") == ADAPTERS_FORMAT


def _copy_into(wanted: dict[str, torch.Tensor], folder: Path, model: MultimodalModel) -> None:
    own = {id(parameter) for parameter in adapter_parameters(model)}
    found = {
        name: (folder / TRAINED_FILE, each) for name, each in read_tensors(folder / TRAINED_FILE, NOT_WHOLE).items()
    }
    sources = {name: name for name, each in wanted.items() if id(each) not in own}
    for part in BACKBONES:
        if not any(True for _ in adapted_layers(getattr(model, part))):
            continue
        path = _peft_file(folder, part)
        found |= {f"{part}/{name}": (path, each) for name, each in read_tensors(path, NOT_WHOLE).items()}
        inside = [name for name, each in wanted.items() if id(each) in own and name.startswith(f"{part}.")]
        sources |= {name: f"{part}/{_peft_name(name.removeprefix(f'{part}.'))}" for name in inside}
    missing, unknown = set(sources.values()) - found.keys(), found.keys() - set(sources.values())
    if missing or unknown:
        example = sorted(missing or unknown)[0]
        counts = f"{len(missing)} tensors missing, {len(unknown)} unknown"
        raise InputError(f"{folder}: adapters of another model: {counts}, first {example}")
    for name, tensor in wanted.items():
        path, values = found[sources[name]]
        if values.shape != tensor.shape:
            got, want = tuple(values.shape), tuple(tensor.shape)
            raise InputError(f"{path}: adapters of another model: {name} has shape {got}, wanted {want}")
        with torch.no_grad():
            tensor.copy_(values)


def _check_built(model: MultimodalModel, vocabulary: Vocabulary) -> None:
    """Raise InputError for a backbone that was imported, merged or trained: its settings do not say all that it is."""
    settings = model.settings
    for part in BACKBONES:
        if getattr(settings, part).type is None:
            continue
        if part == "vision":
            config = vision_config(settings.vision, model.image_size_px, native_aspect=model.native_aspect)
        else:
            config = language_config(settings.language, vocabulary)
        if stored_fields(config) != stored_fields(getattr(model, part).config):
            raise InputError(
                f"model.{part}: this {config.model_type} is no longer that of a folder of its own (it was imported, "
                "trained or merged), and the settings alone do not rebuild it. Keep the whole model."
            )


def _left_out(model: MultimodalModel) -> dict[str, set[str]]:
    """Return per backbone the names of the frozen tensors that its own folder (or the hub) holds."""
    apart = {id(each) for each in (*adapter_parameters(model), *added_parameters(model.language))}
    names: dict[str, set[str]] = {}
    for part in BACKBONES:
        if part not in model.settings.trained and getattr(model.settings, part).type is None:
            tensors = stored_tensors(model)
            names[part] = {n for n, each in tensors.items() if n.startswith(f"{part}.") and id(each) not in apart}
    return names


def _digest(tensors: Mapping[str, torch.Tensor], names: set[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(names):
        # Position tables may be interpolated anew at loading, where another processor may differ in the last bit.
        if "position" not in name:
            digest.update(f"{name} {tuple(tensors[name].shape)} {tensors[name].dtype}\n".encode())
            digest.update(_plain(tensors[name]).reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_rounded(tensors: Iterable[torch.Tensor]) -> bool:
    return all(torch.equal(each.float(), each.bfloat16().float()) for each in tensors if each.is_floating_point())


@torch.no_grad()
def _round(tensors: Iterable[torch.Tensor]) -> None:
    for each in tensors:
        if each.is_floating_point():
            each.copy_(each.bfloat16())


def _vocabulary(model: MultimodalModel) -> Vocabulary:
    config, added = model.language.config, added_ids_of(model.language)
    return Vocabulary(
        size=config.vocab_size,
        pad_id=config.pad_token_id,
        bos_id=config.bos_token_id,
        eos_id=config.eos_token_id,
        added_ids=added,
    )


def _where(settings: ModelSettings, part: Backbone) -> dict[str, Any]:
    tower = getattr(settings, part)
    targets = {"base_model_name_or_path": str(tower.folder or tower.hub or "")}
    return targets | ({"task_type": "CAUSAL_LM"} if part == "language" else {})


def _peft_file(folder: Path, part: Backbone) -> Path:
    return folder / part / PEFT_WEIGHTS_FILE


def _peft_name(name: str) -> str:
    """Return the name under which peft stores a parameter: without the adapter's name, magnitudes without `.weight`."""
    stem, _, last = name.partition(".default")
    return f"base_model.model.{stem}" + ("" if stem.endswith("lora_magnitude_vector") else last)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().cpu().contiguous()


def _moved(settings: dict[str, Any], backbones: Mapping[Backbone, Path]) -> dict[str, Any]:
    moved: dict[str, Any] = {
        part: {**settings[part], "folder": str(path), "hub": None} for part, path in backbones.items()
    }
    return settings | moved


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    # peft keeps sets in its configuration.
    text = json.dumps(content, indent=2, default=lambda value: sorted(value) if isinstance(value, set) else str(value))
    path.write_text(text + "\n", encoding="utf-8")
