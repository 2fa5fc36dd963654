"""Models to and from folders of transformers' own classes: `config.json`, safetensors, `generation_config.json`.

transformers writes the weights itself, so the names in the file are those that it, and what else serves such folders,
expects. Nothing is fetched, unpickled or run from a folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from carnac.core.errors import InputError
from carnac.model.added_tokens import add_tokens, language_weights, vision_weights
from carnac.model.build import join
from carnac.model.formats import CROSS_ATTENTION, FORMATS, NATIVE_ASPECT, FormatName, idefics, idefics3, refusals
from carnac.model.formats.description import Description
from carnac.model.formats.idefics_names import FUSION
from carnac.model.formats.language_model import refuse_built_language
from carnac.model.formats.pictures import shows_squares
from carnac.model.language import language_from_config
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import ModelSettings, TowerSettings
from carnac.model.vision import vision_from_config

HEAD = "lm_head.weight"  # where all formats keep the output layer
FORMAT_OF: dict[str, FormatName] = {kind: name for name, form in FORMATS.items() for kind in form.MODEL_TYPES}


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """Ids that a served model must know: of the image token, and of begin, end and padding of a sequence."""

    image: int
    begin: int | None
    end: int
    pad: int


def write_folder(model: MultimodalModel, described: Description, name: FormatName, ids: SpecialIds, out: Path) -> None:
    """Write `model` into `out` in format `name`, weights in the precision that they have.

    Raises InputError with a sentence where the format cannot express the model; nothing is written then.
    """
    check_expressible(model, described, name)
    from transformers import AutoModelForImageTextToText, GenerationConfig

    form = FORMATS[name]
    config = form.configuration(described, ids.image)
    body = model.language.base_model_prefix
    language = {HEAD if name == _head(model.language) else name: each for name, each in language_weights(model).items()}
    tensors = form.their_tensors(described, vision_weights(model), _joining(model), language, body)
    with torch.device("meta"):
        theirs = AutoModelForImageTextToText.from_config(config)  # type: ignore[no-untyped-call]
    if config.tie_word_embeddings:
        tensors[HEAD] = tensors[f"{form.TEXT}embed_tokens.weight"]
    theirs.load_state_dict({key: tensor.detach() for key, tensor in tensors.items()}, assign=True)
    theirs.tie_weights()
    generation: Any = GenerationConfig  # transformers is untyped
    theirs.generation_config = generation(
        bos_token_id=ids.begin, eos_token_id=ids.end, pad_token_id=ids.pad, do_sample=False
    )
    with _quietly():
        theirs.save_pretrained(out)
    for path in out.glob("*.safetensors"):
        path.chmod((out / "config.json").stat().st_mode)  # the library closes weights to others


def check_expressible(model: MultimodalModel, described: Description, name: FormatName) -> None:
    """Raise InputError with every reason why format `name` cannot express `model`."""
    found = [f"{'.'.join(place)}: {sentence}" for place, sentence in refusals(name, described)]
    built = refuse_built_language(model.language)
    if not found and built:
        found = [f"model.language: the {name} format cannot express this model: {built}; no other format can either."]
    if found:
        raise InputError("\n".join(found))


def read_settings(folder: Path) -> tuple[ModelSettings, Any, Any, FormatName]:
    """Return (our settings of the model of `folder`, its tower's configuration, that of the whole, the format's name).

    Reads no weights. Raises InputError for a folder of another model.
    """
    config, name = _read_config(folder)
    form = FORMATS[name]
    settings_of_vision, connector = form.our_settings(config)
    crossed = name == CROSS_ATTENTION
    settings = ModelSettings(
        family="cross_attention" if crossed else "autoregressive",
        vision=settings_of_vision,
        connector=connector,
        language=TowerSettings(type=language_of(config).model_type),
        cross_attention=form.our_blocks(config) if crossed else None,
    )
    # Of a model of squares the tower is one of squares too: Idefics2's own class would wait for other pictures.
    squares = name == NATIVE_ASPECT and shows_squares(folder)
    return settings, (idefics3 if squares else form).our_vision(config), config, name


def language_of(config: Any) -> Any:
    """Return the language model's configuration of that of a whole, without added tokens that have their own tables."""
    return idefics.our_language(config) if FORMAT_OF[config.model_type] == CROSS_ATTENTION else config.text_config


def read_folder(folder: Path) -> tuple[MultimodalModel, Any]:
    """Return (our model with the weights of `folder`, in float32; transformers' configuration of the whole).

    Knows Idefics, Idefics2, Idefics3, SmolVLM and LLaVA. Raises InputError for a folder of another model, or whose
    weights are not whole.
    """
    settings, tower, config, name = read_settings(folder)
    form = FORMATS[name]
    tensors = {key: tensor.float() for key, tensor in _read_model(folder).state_dict().items()}
    with torch.random.fork_rng(devices=[]):  # the random weights are overwritten; the caller's state is not to move
        vision = vision_from_config(tower)
        language = language_from_config(language_of(config))
        if name == CROSS_ATTENTION:
            add_tokens(language, idefics.our_added_ids(config))
        model = join(settings, vision, language).float().eval()
    tensors = {_head(language) if name == HEAD else name: tensor for name, tensor in tensors.items()}
    of_vision, joining, of_language = form.our_tensors(config, tensors, language.base_model_prefix)
    if name == NATIVE_ASPECT and tower.model_type == "siglip_vision_model":
        of_vision[idefics3.POSITIONS] = of_vision[idefics3.POSITIONS][idefics3.used_positions(config.vision_config)]
    vision.load_state_dict(of_vision)
    language.load_state_dict(of_language)
    _join(model, joining)
    return model, config


def _joining(model: MultimodalModel) -> dict[str, torch.Tensor]:
    """Return the tensors of all that joins the two backbones: the connector's, and those of blocks behind `fusion.`."""
    fusion = getattr(model, "fusion", None)
    blocks = {} if fusion is None else {FUSION + name: tensor for name, tensor in fusion.state_dict().items()}
    return {**model.connector.state_dict(), **blocks}


def _join(model: MultimodalModel, tensors: dict[str, torch.Tensor]) -> None:
    """Load what `_joining` returns."""
    blocks = {name.removeprefix(FUSION): tensor for name, tensor in tensors.items() if name.startswith(FUSION)}
    model.connector.load_state_dict({name: each for name, each in tensors.items() if not name.startswith(FUSION)})
    fusion = getattr(model, "fusion", None)
    if fusion is not None:
        fusion.load_state_dict(blocks)


def _head(language: Any) -> str:
    """Return the name of the output layer's weight, `lm_head.weight` in most families."""
    head = language.get_output_embeddings()
    return next(f"{name}.weight" for name, module in language.named_modules() if module is head)


def _read_config(folder: Path) -> tuple[Any, FormatName]:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():  # a name that is no folder could be one in the user's cache
        raise InputError(f"{folder}: no config.json there. Wanted the folder of a model as transformers saves it.")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (StrictDataclassError, OSError, ValueError, KeyError, TypeError) as error:
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: no configuration that transformers can read ({detail})") from error
    if config.model_type not in FORMAT_OF:
        known = ", ".join(sorted(FORMAT_OF))
        raise InputError(f"{folder / 'config.json'}: a model of type {config.model_type!r}; wanted one of {known}")
    return config, FORMAT_OF[config.model_type]


def _read_model(folder: Path) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    auto: Any = AutoModelForImageTextToText
    try:
        with _quietly():
            theirs, report = auto.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # told below
                output_loading_info=True,
            )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:300]
        raise InputError(f"{folder}: its weights cannot be read ({detail}); wanted whole safetensors files") from error
    for kind in ("missing", "mismatched"):
        names = sorted(each if isinstance(each, str) else each[0] for each in report[f"{kind}_keys"])
        if names:
            raise InputError(f"{folder}: weights of another model: {len(names)} {kind}, first {names[0]}")
    return theirs.eval()


@contextmanager
def _quietly() -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # untyped
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # what is wrong with a folder is said in a sentence of ours
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()
