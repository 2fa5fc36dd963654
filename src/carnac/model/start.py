"""A model that is there already -> the one that a run goes on from: other parts trained, new adapters, larger squares.

In: a folder of ours (a finished model, a checkpoint, adapters) or one exported to a format of `model.formats`. Its
weights stay as they are, to the bit, but for what is asked: adapters merged, position tables interpolated, rows for new
tokens.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch

from carnac.core.errors import InputError
from carnac.core.seeds import seed_of
from carnac.engine.storage import sha256_of
from carnac.model.adapter_files import is_adapters, load_adapters
from carnac.model.adapters import BACKBONES, adapt_backbone, adapted_layers, adapter_parameters, add_adapters
from carnac.model.adapters import merge_adapters as merge_all
from carnac.model.added_tokens import added_parameters, extend_tokens
from carnac.model.check import check_trained
from carnac.model.connectors import build_connector
from carnac.model.language import Vocabulary, name_special_ids, prove_packing
from carnac.model.multimodal import MultimodalModel, freeze
from carnac.model.settings import PARTS, AdapterSettings, Part
from carnac.model.towers import NATIVE, of_aspect, side_of
from carnac.model.vision import at_size, num_features
from carnac.model.weights import CONFIG_FILE, FORMAT, WEIGHTS_FILE, load_model

STATE_FILE = "state.json"  # of a checkpoint: it names the sha256 of each file beside it


def start_from(
    folder: Path,
    *,
    trained: Sequence[Part],
    adapters: AdapterSettings | None,
    merge: bool,
    image_size_px: int | None,
    seed: int,
) -> MultimodalModel:
    """Return the model of `folder` in float32 with `trained` parts and, where asked, new `adapters`.

    Adapters that it brings are merged into the weights where `merge` is set or new ones are asked for; else they are
    kept and trained on. `image_size_px` is the side of the squares that the tower is to take, None for the one it has.
    New weights depend on `seed` alone; the global generator is left as it was. Raises InputError with a sentence where
    the folder holds no model, or its model, `trained` and `adapters` exclude one another.
    """
    model = _load(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "start") % 2**63)
        if model.settings.adapters is not None and (merge or adapters is not None):
            _merge(model)
        _settle(model, folder, trained, adapters)
        if image_size_px is not None:
            _resize(model, image_size_px)
        prove_packing(model.language)
        freeze(model, trained)
        if adapters is not None:
            add_adapters(model)
    for parameter in adapter_parameters(model):
        parameter.requires_grad_(True)
    return model.eval()


def fit_vocabulary(model: MultimodalModel, vocabulary: Vocabulary, seed: int) -> None:
    """Give a model from `start_from` rows for added tokens of its tokenizer that it lacks, and the special ids.

    The new rows depend on `seed` alone and are trained where the model's settings train added tokens. Raises InputError
    where the tokenizer is another model's.
    """
    rows = model.language.config.vocab_size
    missing = range(rows, vocabulary.size)
    if not set(missing) <= set(vocabulary.added_ids):
        raise InputError(
            f"init_from: the model knows {rows} tokens, the tokenizer has {vocabulary.size}: the tokenizer of another "
            "model. Take the model's own (tokenizer.folder)."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "added tokens") % 2**63)
        extend_tokens(model.language, tuple(missing))
    for parameter in added_parameters(model.language):
        parameter.requires_grad_("added_tokens" in model.settings.trained)
    name_special_ids(model.language, vocabulary)


def _load(folder: Path) -> MultimodalModel:
    """Load a folder of any of the kinds; raise InputError that names them where it is none."""
    if is_adapters(folder):
        return load_adapters(folder)
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{folder}: no model here ({CONFIG_FILE}: {error.strerror}). Wanted the output folder of a finished train "
            f"recipe, one of its checkpoints, or a folder exported to {_formats()}.{_hint(folder)}"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if isinstance(content, dict) and content.get("format") == FORMAT:
        _check_digests(folder)
        return load_model(folder)
    from carnac.model.formats.folders import read_folder

    return read_folder(folder)[0]


def _check_digests(folder: Path) -> None:
    """Raise InputError where the model's files are not those that a checkpoint's state names; others name none."""
    try:
        digests = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))["digests"]
        wanted = {name: str(digests[name]) for name in (CONFIG_FILE, WEIGHTS_FILE)}
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / STATE_FILE}: damaged ({error}); start from another checkpoint") from error
    for name, digest in wanted.items():
        if sha256_of(folder / name) != digest:
            raise InputError(
                f"{folder / name}: damaged: its sha256 is not the one written in {STATE_FILE}; start from another "
                "checkpoint"
            )


def _formats() -> str:
    from carnac.model.formats import NAMES

    return f"{', '.join(NAMES[:-1])} or {NAMES[-1]}"


def _hint(folder: Path) -> str:
    found = sorted(folder.glob("checkpoints/step-*"))
    return f" Its newest checkpoint is {found[-1]}." if found else ""


def _merge(model: MultimodalModel) -> None:
    adapted = [part for part in BACKBONES if any(True for _ in adapted_layers(getattr(model, part)))]
    merge_all(model)
    _disown(model, adapted)


def _settle(model: MultimodalModel, folder: Path, trained: Sequence[Part], adapters: AdapterSettings | None) -> None:
    """Write into the model's settings what is trained from now on; raise InputError where that cannot be."""
    _disown(model, model.settings.trained)
    kept = model.settings.adapters if adapters is None else adapters
    settings = model.settings.model_copy(
        update={"trained": tuple(part for part in PARTS if part in trained), "adapters": kept}
    )
    mistakes = [f"{'.'.join(place)}: {sentence}" for place, sentence in check_trained(settings)]
    if mistakes:
        hint = "" if adapters is not None or kept is None else " Or merge the adapters first (merge_adapters = true)."
        raise InputError(f"{folder}, trained further: {' '.join(mistakes)}{hint}")
    model.settings = settings


def _disown(model: MultimodalModel, parts: Collection[str]) -> None:
    """Let backbones whose weights are no longer those of their folder no longer be called by it.

    A folder of adapters leaves out what the backbone's own folder holds: it would leave out what was learned.
    """
    changed: dict[str, object] = {
        part: type(getattr(model.settings, part)).model_validate(
            getattr(model.settings, part).model_dump(exclude={"folder", "hub", "type"})
            | {"type": _type_of(getattr(model, part).config)}
        )
        for part in BACKBONES
        if part in parts and getattr(model.settings, part).type is None
    }
    model.settings = model.settings.model_copy(update=changed)


def _type_of(config: Any) -> str:
    """Return the type by which settings call a backbone; pictures say whether they have any shape, not the tower."""
    kind: str = of_aspect(config, native_aspect=False).model_type if config.model_type == NATIVE else config.model_type
    return kind


def _resize(model: MultimodalModel, image_size_px: int) -> None:
    """Let tower and connector take squares of another size; raise InputError where one of them cannot."""
    patch = side_of(model.vision.config.patch_size) or 1
    if image_size_px % patch:
        raise InputError(f"pictures of {image_size_px} px: no multiple of the {patch} px of this tower's patches")
    settings = model.settings.adapters
    keep = settings is not None and any(True for _ in adapted_layers(model.vision))

    def prepare(tower: object) -> None:
        if keep and settings is not None:
            adapt_backbone(tower, "vision", settings)

    before = model.vision
    model.vision = at_size(before, image_size_px, prepare)
    if model.vision is before:
        return
    # The weights of a connector know no number of patches; what is built with it is the number of image tokens.
    sizes = (model.vision.config.hidden_size, model.language.config.hidden_size)
    patches = num_features(model.vision.config, model.settings.vision)
    connector = build_connector(model.settings.connector, *sizes, patches)
    connector.load_state_dict(model.connector.state_dict())
    model.connector = connector
