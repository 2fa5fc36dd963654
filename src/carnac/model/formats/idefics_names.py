"""What the resampler and the blocks of Idefics are called by us and by transformers. Pure string work; no torch."""

from __future__ import annotations

from collections.abc import Mapping

FUSION, LAYERS = "fusion.", "layers."  # ours
BLOCKS, RESAMPLER, RESAMPLER_LAYERS = "model.gated_cross_attn_layers.", "model.perceiver_resampler.", "blocks."
# Ours, behind the number of a block, and theirs; `.weight` is left out.
IN_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.query": "cross_attn.q_proj",
    "attention.key": "cross_attn.k_proj",
    "attention.value": "cross_attn.v_proj",
    "attention.output": "cross_attn.o_proj",
    "attention.query_norm": "cross_attn.q_layer_norm",
    "attention.key_norm": "cross_attn.k_layer_norm",
    "attention_gate": "alpha_cross_attn",
    "mlp_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "mlp_gate": "alpha_dense",
}
IN_RESAMPLER_LAYER = {
    "attention.patch_norm": "0.context_layer_norm",
    "attention.latent_norm": "0.latents_layer_norm",
    "attention.query_norm": "0.q_layer_norm",
    "attention.key_norm": "0.k_layer_norm",
    "attention.query": "0.q_proj",
    "attention.key": "0.k_proj",
    "attention.value": "0.v_proj",
    "attention.output": "0.output_proj",
    "mlp.norm": "1.ln",
    "mlp.up": "1.fc",
    "mlp.down": "1.c_proj",
}


def their_block(name: str) -> str:
    """Return transformers' name of a tensor of our blocks, `fusion.0.attention.query.weight`."""
    return _renamed(name, (FUSION, BLOCKS), IN_BLOCK)


def our_block(name: str) -> str:
    """Return our name of a tensor of transformers' blocks; the inverse of `their_block`."""
    return _renamed(name, (BLOCKS, FUSION), _inverse(IN_BLOCK))


def their_resampler(name: str) -> str:
    """Return transformers' name of a tensor of our resampler, `layers.0.mlp.up.weight`."""
    if name.startswith(LAYERS):
        return _renamed(name, (LAYERS, RESAMPLER + RESAMPLER_LAYERS), IN_RESAMPLER_LAYER)
    return RESAMPLER + name.replace("norm.", "layer_norm.")


def our_resampler(name: str) -> str:
    """Return our name of a tensor of transformers' resampler; the inverse of `their_resampler`."""
    bare = name.removeprefix(RESAMPLER)
    if bare.startswith(RESAMPLER_LAYERS):
        return _renamed(bare, (RESAMPLER_LAYERS, LAYERS), _inverse(IN_RESAMPLER_LAYER))
    return bare.replace("layer_norm.", "norm.")


def _renamed(name: str, prefixes: tuple[str, str], names: Mapping[str, str]) -> str:
    """Rename `prefix.NUMBER.module.weight`: the prefix, and the module by `names`."""
    number, _, inner = name.removeprefix(prefixes[0]).partition(".")
    module, dot, leaf = inner.rpartition(".")
    if leaf not in ("weight", "bias"):  # a parameter without a module of its own
        module, dot, leaf = inner, "", ""
    return f"{prefixes[1]}{number}.{names[module]}{dot}{leaf}"


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}
