"""transformers' Idefics2 with the weights of carnac's model: the same sizes, the same tower, the same perceiver."""

from __future__ import annotations

import re
from typing import Any

from carnac.model.multimodal import MultimodalModel
from train.pinned import IMAGE_ID, PAD_ID, Size, language_fields, vision_fields

# Beginnings and parts of names: carnac's, and those of transformers' class.
NAMES = (
    (r"^vision\.", "model.vision_model."),
    (r"^language\.model\.", "model.text_model."),
    (r"^language\.lm_head\.", "lm_head."),
    (r"^connector\.mlp\.(\w+)\.", r"model.connector.modality_projection.\1_proj."),
    (r"^connector\.", "model.connector.perceiver_resampler."),
    (r"latent_norm", "input_latents_norm"),
    (r"patch_norm", "input_context_norm"),
    (r"mlp_norm", "post_attention_layernorm"),
    (r"(resampler\.layers\.\d+\.mlp\.\w+)\.", r"\1_proj."),
    (r"attention\.query\.", "self_attn.q_proj."),
    (r"attention\.key\.", "self_attn.k_proj."),
    (r"attention\.value\.", "self_attn.v_proj."),
    (r"attention\.output\.", "self_attn.o_proj."),
)


def make_idefics2(ours: MultimodalModel, size: Size) -> Any:
    """Return transformers' class with the weights of `ours`; every weight has its counterpart."""
    from transformers import Idefics2Config, Idefics2ForConditionalGeneration

    config = Idefics2Config(
        image_token_id=IMAGE_ID,
        vision_config={**vision_fields(size), "image_size": size.image_px},
        text_config={
            **language_fields(size), "model_type": "mistral", "vocab_size": size.vocabulary, "pad_token_id": PAD_ID
        },
        perceiver_config={
            "hidden_size": size.width,
            "resampler_n_latents": size.latents,
            "resampler_depth": size.depth,
            "resampler_n_heads": size.heads,
            "resampler_head_dim": size.width // size.heads,
            "num_key_value_heads": size.kv_heads,
        },
        tie_word_embeddings=True,
    )  # fmt: skip
    model = Idefics2ForConditionalGeneration(config)
    model.load_state_dict({_renamed(name): tensor for name, tensor in ours.state_dict().items()})
    return model.train()


def _renamed(name: str) -> str:
    for pattern, wanted in NAMES:
        name = re.sub(pattern, wanted, name)
    return name
