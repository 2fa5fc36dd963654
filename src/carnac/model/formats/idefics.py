"""Idefics: a CLIP tower, a resampler, gated cross-attention between the layers of a Llama; one mark around pictures.

Pure mappings between our parts and transformers' `IdeficsForVisionText2Text`: configurations, tensor names, and the
sentence that says why a model has no place in the format. Laurencon et al. 2023, arXiv 2306.16527. Legend of shapes: B
rows of the language model's own table, K rows with the added tokens, H heads, d width of a head, D width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from carnac.core.errors import InputError
from carnac.model.formats.description import Description, Reason
from carnac.model.formats.idefics_names import (
    BLOCKS,
    FUSION,
    RESAMPLER,
    our_block,
    our_resampler,
    their_block,
    their_resampler,
)
from carnac.model.formats.language_model import inside_of, refuse_language
from carnac.model.settings import ConnectorSettings, CrossAttentionSettings, ResamplerSettings, VisionSettings
from carnac.model.towers import side_of

if TYPE_CHECKING:
    import torch

MODEL_TYPES = ("idefics",)
VISION_TYPE = "clip_vision_model"
VISION_FIELDS = (
    "image_size", "intermediate_size", "patch_size", "num_hidden_layers", "num_attention_heads", "num_channels",
    "hidden_act", "layer_norm_eps", "attention_dropout", "initializer_range", "initializer_factor",
)  # fmt: skip
LANGUAGE_TYPES = ("llama", "mistral")  # the same computation, but for Mistral's window
LANGUAGE_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "rms_norm_eps",
    "initializer_range", "max_position_embeddings", "bos_token_id", "eos_token_id",
)  # fmt: skip
VISION, TEXT, EMBEDDING, HEAD = "model.vision_model.", "model.", "embed_tokens.weight", "lm_head.weight"
ADDED_EMBEDDING, ADDED_HEAD = "embed_tokens.additional_embedding.weight", "lm_head.additional_fc.weight"


def reasons(described: Description) -> Iterator[Reason]:
    """Yield every reason why the format cannot express the model; none where it can. Looks at no weights."""
    vision, connector, language = described.settings.vision, described.settings.connector, described.language
    if described.vision.model_type != VISION_TYPE:
        yield ("model", "vision"), f"its vision tower is CLIP's, and this one is {described.vision.model_type}"
    if vision.feature_layer != -1:
        sentence = f"it reads the tower's last layer, and this model reads layer {vision.feature_layer}"
        yield ("model", "vision", "feature_layer"), sentence
    if not vision.class_token:
        yield ("model", "vision", "class_token"), "its resampler reads the class token too, and this model drops it"
    if not isinstance(connector, ResamplerSettings):
        yield ("model", "connector"), f"its connector is a resampler, and this one is of type {connector.type}"
    if described.pictures.max_tiles > 1:
        sentence = "it shows whole pictures only, and this model cuts them into tiles (max_tiles = 1 would do)"
        yield ("pictures", "max_tiles"), sentence
    if described.pictures.marks != "idefics":
        sentence = (
            f"its processor writes its marks around pictures, and this model has marks = {described.pictures.marks}"
        )
        yield ("pictures", "marks"), sentence
    yield from _refuse_language(language)
    if described.settings.family == "cross_attention":
        for field, sentence in _refuse_blocks(described.settings.blocks, language):
            yield ("model", "cross_attention", field), sentence


def configuration(described: Description, _image_id: int) -> Any:
    """Return transformers' `IdeficsConfig` of a model that the format can express.

    It names no image token: the processor looks for `<image>`.
    """
    from transformers import IdeficsConfig

    language, connector, blocks = described.language, described.settings.connector, described.settings.blocks
    assert isinstance(connector, ResamplerSettings)
    rows = language.vocab_size - described.added_rows
    pad = language.pad_token_id
    return IdeficsConfig(
        **{name: getattr(language, name) for name in LANGUAGE_FIELDS},
        rope_parameters=copy.deepcopy(language.rope_parameters),
        vocab_size=rows,
        additional_vocab_size=described.added_rows,
        # Its table refuses a padding id that is one of the added rows; generation_config.json still names it.
        pad_token_id=None if pad is None or pad >= rows else pad,
        tie_word_embeddings=language.tie_word_embeddings,
        cross_layer_interval=blocks.every,
        qk_layer_norms=blocks.qk_norms,
        alpha_type="float" if blocks.gates == "scalar" else "vector",
        use_resampler=True,
        perceiver_config={
            "use_resampler": True,
            "resampler_n_latents": connector.latents,
            "resampler_depth": connector.depth,
            "resampler_n_heads": connector.heads,
            "resampler_head_dim": connector.head_size,
            "qk_layer_norms_perceiver": connector.qk_norms,
        },
        vision_config={
            "embed_dim": described.vision.hidden_size,
            **{name: getattr(described.vision, name) for name in VISION_FIELDS},
            **{name: side_of(getattr(described.vision, name)) for name in ("image_size", "patch_size")},
        },
    )


def their_tensors(
    described: Description,
    vision: Mapping[str, torch.Tensor],
    connector: Mapping[str, torch.Tensor],
    language: Mapping[str, torch.Tensor],
    body: str = "model",
) -> dict[str, torch.Tensor]:
    """Return the tensors of `IdeficsForVisionText2Text`, by name; arguments as in `idefics3.their_tensors`.

    `connector` holds the blocks too, behind `fusion.`. Shared heads of keys and values [H / n * d, D] are repeated to
    [H * d, D]: exact. Rows beyond the language model's own table go to tables of their own.
    """
    found = {VISION + name.removeprefix("vision_model."): tensor for name, tensor in vision.items()}
    for name, tensor in connector.items():
        if name.startswith(FUSION):
            theirs = their_block(name)
            vector = theirs.endswith(("alpha_cross_attn", "alpha_dense")) and len(tensor) > 1
            found[theirs] = tensor[None, None] if vector else tensor
        else:
            found[their_resampler(name)] = tensor
    heads = described.language.num_attention_heads
    shared = heads // (described.language.num_key_value_heads or heads)
    for theirs, tensor in inside_of(TEXT, language, body).items():
        is_shared = theirs.endswith(("self_attn.k_proj.weight", "self_attn.v_proj.weight"))
        found[theirs] = _repeated(tensor, heads // shared, shared) if is_shared else tensor
    return _split(found, described.added_rows, tied=described.language.tie_word_embeddings)


def our_vision(config: Any) -> Any:
    """Return the `CLIPVisionConfig` that computes what the tower of an `IdeficsConfig` does, whole patches only."""
    from transformers import CLIPVisionConfig

    fields = {name: getattr(config.vision_config, name) for name in VISION_FIELDS}
    side, patch = side_of(fields["image_size"]), side_of(fields["patch_size"])
    if side is None or patch is None:
        raise InputError("vision_config.image_size, patch_size: wanted squares of square patches")
    fields |= {"image_size": side - side % patch, "patch_size": patch}
    return CLIPVisionConfig(hidden_size=config.vision_config.embed_dim, **fields)


def our_language(config: Any) -> Any:
    """Return the `LlamaConfig` of the language model of an `IdeficsConfig`, without the added tokens."""
    from transformers import LlamaConfig

    return LlamaConfig(
        **{name: getattr(config, name) for name in LANGUAGE_FIELDS},
        rope_parameters=copy.deepcopy(config.rope_parameters),
        num_key_value_heads=config.num_attention_heads,
        vocab_size=config.vocab_size,
        pad_token_id=config.pad_token_id,
        tie_word_embeddings=config.tie_word_embeddings,
    )


def our_added_ids(config: Any) -> tuple[int, ...]:
    """Return the ids of an `IdeficsConfig` that lie beyond the language model's own table."""
    return tuple(range(config.vocab_size, config.vocab_size + config.additional_vocab_size))


def our_settings(config: Any) -> tuple[VisionSettings, ConnectorSettings]:
    """Return the settings of tower and connector; raise InputError for what ours cannot express."""
    perceiver = config.perceiver_config
    if not config.use_resampler:
        raise InputError("use_resampler: false, so its blocks read bare patches; wanted a model with its resampler")
    if config.hidden_act != "silu":
        raise InputError(f"hidden_act: {config.hidden_act!r}; wanted 'silu', as in Idefics")
    if config.num_hidden_layers % config.cross_layer_interval:
        raise InputError(
            f"cross_layer_interval: {config.cross_layer_interval} does not divide {config.num_hidden_layers} layers"
        )
    return (
        VisionSettings(type=VISION_TYPE, class_token=True),
        ResamplerSettings(
            type="resampler",
            latents=perceiver.resampler_n_latents,
            depth=perceiver.resampler_depth,
            heads=perceiver.resampler_n_heads,
            head_size=perceiver.resampler_head_dim,
            qk_norms=perceiver.qk_layer_norms_perceiver,
        ),
    )


def our_blocks(config: Any) -> CrossAttentionSettings:
    """Return the settings of the cross-attention blocks of an `IdeficsConfig`."""
    return CrossAttentionSettings(
        every=config.cross_layer_interval,
        gates="vector" if config.alpha_type == "vector" else "scalar",
        qk_norms=config.qk_layer_norms,
        text_tokens="mlp",
    )


def our_tensors(
    config: Any, tensors: Mapping[str, torch.Tensor], body: str = "model"
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Return the tensors of vision tower, connector (with the blocks, behind `fusion.`) and language model, our names.

    The inverse of the above, but that heads of keys and values stay as many as they are.
    """
    vision, connector, language = {}, {}, {}
    added = config.additional_vocab_size > 0
    tables = {ADDED_HEAD: "lm_head.added.weight", TEXT + ADDED_EMBEDDING: f"{body}.embed_tokens.added.weight"}
    if added:
        tables |= {HEAD: "lm_head.base.weight", TEXT + EMBEDDING: f"{body}.embed_tokens.base.weight"}
    for name, tensor in tensors.items():
        if name.startswith(VISION):
            vision[name.removeprefix(VISION)] = tensor
        elif name.startswith(RESAMPLER):
            connector[our_resampler(name)] = tensor
        elif name.startswith(BLOCKS):
            connector[our_block(name)] = tensor.flatten() if ".alpha_" in name else tensor
        elif name in tables:
            language[tables[name]] = tensor
        else:
            language[f"{body}.{name.removeprefix(TEXT)}" if name.startswith(TEXT) else name] = tensor
    return vision, connector, language


def _refuse_language(language: Any) -> Iterator[Reason]:
    kind, place = language.model_type, ("model", "language")
    if kind not in LANGUAGE_TYPES:
        yield place, f"its language model is a Llama, and this one is {kind}"
        yield from refuse_language(language)
        return
    window = getattr(language, "sliding_window", None)
    if window is not None and window < language.max_position_embeddings:
        yield place, f"its tokens see the whole row, and this {kind}'s the last {window} tokens (sliding_window)"
    for name in ("attention_bias", "mlp_bias"):
        if getattr(language, name, False):
            yield place, f"its language model has no biases, and this one has them ({name})"
    width, heads = language.hidden_size, language.num_attention_heads
    size = getattr(language, "head_dim", None) or width // heads
    if size * heads != width:
        yield place, f"its heads share out the width, {width}, and this one has {heads} heads of {size} (head_dim)"
    if language.hidden_act != "silu":
        yield place, f"its MLPs are SwiGLU, and this {kind} has hidden_act = {language.hidden_act}"


def _refuse_blocks(blocks: CrossAttentionSettings, language: Any) -> Iterator[tuple[str, str]]:
    layers, heads, inside = language.num_hidden_layers, language.num_attention_heads, language.intermediate_size
    if layers % blocks.every:
        divisors = [each for each in range(1, layers + 1) if layers % each == 0]
        nearest = min(divisors, key=lambda each: (abs(each - blocks.every), each))
        sentence = f"its blocks stand before every n-th layer with n a divisor of {layers}, and this one has"
        yield "every", f"{sentence} {blocks.every} ({nearest} would do)"
    if blocks.attend != "previous":
        yield "attend", f"its tokens read the previous image, and this model's read attend = {blocks.attend}"
    if blocks.mlp != "swiglu":
        yield "mlp", f"its blocks have a SwiGLU, and these have mlp = {blocks.mlp}"
    if blocks.hidden_size not in (None, inside):
        sentence = f"its blocks are as wide inside as the language model, {inside}, and these have {blocks.hidden_size}"
        yield "hidden_size", sentence
    if blocks.heads not in (None, heads):
        sentence = f"its blocks have as many heads as the language model, {heads}, and these have {blocks.heads}"
        yield "heads", sentence
    if blocks.text_tokens != "mlp":
        sentence = "every token goes through the MLP of its blocks, and here those that read no image are untouched"
        yield "text_tokens", f'{sentence} (text_tokens = "mlp" would do)'
    if blocks.mask != "exact":
        yield "mask", "a token that reads no image gets zero from its blocks, and here it gets the mean of all"


def _repeated(tensor: torch.Tensor, groups: int, times: int) -> torch.Tensor:
    """Return [G * n * d, D] of [G * d, D]: each of G heads n times, side by side."""
    heads = tensor.view(groups, -1, tensor.shape[1])
    return heads.repeat_interleave(times, dim=0).flatten(0, 1) if times > 1 else tensor


def _split(tensors: dict[str, torch.Tensor], added: int, *, tied: bool) -> dict[str, torch.Tensor]:
    """Cut the tables [K, D] into [B, D] and [K - B, D]."""
    if not added:
        return tensors
    for name, rest in ((TEXT + EMBEDDING, TEXT + ADDED_EMBEDDING), (HEAD, ADDED_HEAD)):
        if name in tensors:
            tensors[name], tensors[rest] = tensors[name][:-added].clone(), tensors[name][-added:].clone()
    if tied:
        tensors[ADDED_HEAD] = tensors[TEXT + ADDED_EMBEDDING]
    return tensors
