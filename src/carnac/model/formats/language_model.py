"""What formats ask of the language model, and where its tensors go: transformers gives them its body and a plain head.

Their classes run `AutoModel`'s body and multiply its last states by `lm_head.weight`. Whatever else a causal language
model does to its logits (caps, scales, a bias) gets lost there without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from carnac.model.formats.description import Reason

if TYPE_CHECKING:
    import torch

# Fields of transformers' configurations that change the logits, and the value that changes nothing.
LOGIT_FIELDS: dict[str, float | None] = {
    "final_logit_softcapping": None,  # Gemma 2, VaultGemma
    "logit_scale": 1.0,  # Cohere
    "logits_scaling": 1.0,  # Granite
    "lm_head_multiplier": 1.0,  # Falcon-H1
}
# Families whose output layer has a bias, or whose code scales logits by what no field above says.
OTHER_HEADS = frozenset({"phi", "phimoe", "gptj", "codegen", "minicpm3", "nanochat"})


def refuse_language(config: Any) -> Iterator[Reason]:
    """Yield every reason why the formats cannot express a language model of this configuration."""
    kind = config.model_type
    for name, neutral in LOGIT_FIELDS.items():
        value = getattr(config, name, neutral)
        if value is not None and value != neutral:
            sentence = f"{kind} changes its logits ({name} = {value}), which the format's class leaves out"
            yield ("model", "language"), sentence
    if kind in OTHER_HEADS:
        sentence = f"{kind} has an output layer with a bias or a scale, which the format's class leaves out"
        yield ("model", "language"), sentence


def inside_of(prefix: str, language: Mapping[str, torch.Tensor], body: str) -> dict[str, torch.Tensor]:
    """Return a language model's tensors by their names in a composed class: its `body` stands behind `prefix`."""
    return {
        prefix + name.removeprefix(f"{body}.") if name.startswith(f"{body}.") else name: tensor
        for name, tensor in language.items()
    }


def refuse_built_language(language: Any) -> str | None:
    """Say why the formats cannot express this very language model, or None: its logits are made both ways."""
    import torch

    body, head = getattr(language, language.base_model_prefix), language.get_output_embeddings()
    kind = language.config.model_type
    if language.config.tie_word_embeddings and not hasattr(body, "embed_tokens"):
        return f"{kind} ties its output layer to a table of another name than embed_tokens"
    ids = torch.arange(8, device=language.device)[None] % language.config.vocab_size
    with torch.no_grad():
        embedded = language.get_input_embeddings()(ids)
        wanted = language(inputs_embeds=embedded, use_cache=False).logits
        found = head(body(inputs_embeds=embedded, use_cache=False).last_hidden_state)
    if not torch.isfinite(wanted).all():
        return f"{kind} gives logits that are no finite numbers, so nothing could be compared: are its weights sound?"
    plain = getattr(head, "base", head)  # behind added tokens
    if getattr(plain, "bias", None) is not None or not torch.allclose(found, wanted, rtol=1e-4, atol=1e-5):
        return f"{kind} does more to its logits than one output layer without bias, all that the format's class has"
    return None
