from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from carnac.core.errors import InputError
from carnac.model.check import image_tokens_of
from carnac.model.connectors import (
    MlpConnector,
    PerceiverConnector,
    PixelShuffleConnector,
    ResamplerConnector,
    build_connector,
    output_size,
)
from carnac.model.settings import (
    ConnectorSettings,
    MlpSettings,
    PerceiverSettings,
    PixelShuffleSettings,
    ResamplerSettings,
)

VISION, LANGUAGE, PATCHES = 24, 32, 36
PERCEIVER = PerceiverSettings(type="perceiver", latents=5, depth=2, heads=4, head_size=8, kv_heads=2)
RESAMPLER = ResamplerSettings(type="resampler", latents=5, depth=2, heads=2, head_size=8)
KINDS: list[ConnectorSettings] = [
    MlpSettings(),
    MlpSettings(layers=1, bias=False),
    MlpSettings(hidden_size=7),
    PERCEIVER,
    PixelShuffleSettings(type="pixel_shuffle", factor=1),
    PixelShuffleSettings(type="pixel_shuffle", factor=2),
    PixelShuffleSettings(type="pixel_shuffle", factor=3),
    RESAMPLER,
]
LATENTS: list[ConnectorSettings] = [PERCEIVER, RESAMPLER, RESAMPLER.model_copy(update={"qk_norms": False})]


# A whole square, a quarter of one, one patch.
MASK = torch.stack([torch.arange(PATCHES) < count for count in (PATCHES, PATCHES // 4, 1)])


def patches(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, PATCHES, VISION, generator=torch.Generator().manual_seed(seed))


def copy_weights(connector: nn.Module, other: nn.Module, names: dict[str, str]) -> None:
    """Load the weights of transformers' module into ours; `names` say what ours are called."""
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in other.state_dict().items():
        tensors[functools.reduce(lambda told, pair: told.replace(*pair), names.items(), name)] = tensor
    connector.load_state_dict(tensors)


@pytest.mark.parametrize("settings", KINDS)
def test_tokens_are_counted_alike_with_and_without_torch(settings: ConnectorSettings) -> None:
    connector: Any = build_connector(settings, VISION, LANGUAGE, PATCHES)
    found = connector(patches())
    assert found.shape == (3, connector.tokens, output_size(settings, VISION, LANGUAGE))
    assert connector.tokens == image_tokens_of(settings, PATCHES)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("settings", KINDS)
def test_a_square_does_not_depend_on_its_neighbours(settings: ConnectorSettings) -> None:
    connector = build_connector(settings, VISION, LANGUAGE, PATCHES)
    together, alone = connector(patches()), connector(patches()[1:2])
    assert torch.allclose(together[1:2], alone, atol=1e-6)


def test_the_hidden_layer_is_as_wide_as_the_language_model_unless_said_otherwise() -> None:
    widths = [build_connector(MlpSettings(hidden_size=size), VISION, LANGUAGE, PATCHES) for size in (None, 7)]
    assert [each.up.out_features for each in widths if isinstance(each, MlpConnector) and each.up] == [LANGUAGE, 7]


def test_one_layer_is_one_linear_map() -> None:
    connector = MlpConnector(MlpSettings(layers=1, bias=False), VISION, LANGUAGE, PATCHES)
    assert sum(parameter.numel() for parameter in connector.parameters()) == VISION * LANGUAGE
    assert torch.allclose(connector(patches()), patches() @ connector.down.weight.T, atol=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 3, 6])
def test_pixel_shuffle_is_that_of_idefics3(factor: int) -> None:
    from transformers import Idefics3Config
    from transformers.models.idefics3 import modeling_idefics3

    text: Any = {"model_type": "llama", "hidden_size": LANGUAGE}
    config = Idefics3Config(vision_config={"hidden_size": VISION}, text_config=text, scale_factor=factor)
    connector: Any = modeling_idefics3.Idefics3Connector  # transformers is untyped
    theirs = connector(config)
    ours = PixelShuffleConnector(
        PixelShuffleSettings(type="pixel_shuffle", factor=factor), VISION, LANGUAGE, patches=PATCHES
    )
    copy_weights(ours, theirs, {"modality_projection.proj": "projection"})
    assert torch.equal(ours(patches()), theirs(patches()))


def idefics2_config(sizes: dict[str, int], heads: PerceiverSettings) -> Any:
    from transformers import Idefics2Config

    perceiver: Any = {
        "hidden_size": sizes["language"],
        "resampler_n_latents": heads.latents,
        "resampler_depth": heads.depth,
        "resampler_n_heads": heads.heads,
        "resampler_head_dim": heads.head_size,
        "num_key_value_heads": heads.kv_heads,
    }
    text: Any = {"model_type": "mistral", "hidden_size": sizes["language"], "intermediate_size": sizes["hidden"]}
    vision: Any = {"hidden_size": sizes["vision"]}
    return Idefics2Config(vision_config=vision, perceiver_config=perceiver, text_config=text)


IDEFICS2_NAMES = {
    "modality_projection.": "mlp.",
    "perceiver_resampler.": "",
    "gate_proj": "gate",
    "up_proj": "up",
    "down_proj": "down",
    "input_latents_norm": "latent_norm",
    "input_context_norm": "patch_norm",
    "self_attn": "attention",
    "post_attention_layernorm": "mlp_norm",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "o_proj": "output",
}


def test_the_perceiver_is_that_of_idefics2() -> None:
    from transformers.models.idefics2 import modeling_idefics2

    connector: Any = modeling_idefics2.Idefics2Connector  # transformers is untyped
    theirs = connector(idefics2_config({"vision": VISION, "language": LANGUAGE, "hidden": 40}, PERCEIVER))
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    ours = PerceiverConnector(PERCEIVER.model_copy(update={"hidden_size": 40}), VISION, LANGUAGE)
    copy_weights(ours, theirs, IDEFICS2_NAMES)
    found, wanted = ours(patches()), theirs(patches(), torch.ones(3, PATCHES, dtype=torch.bool))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
def test_the_perceiver_reads_the_patches_that_idefics2_reads(kv_heads: int, epsilon: float) -> None:
    from transformers.models.idefics2 import modeling_idefics2

    connector: Any = modeling_idefics2.Idefics2Connector  # transformers is untyped
    settings = PERCEIVER.model_copy(update={"hidden_size": 40, "kv_heads": kv_heads, "norm_epsilon": epsilon})
    config = idefics2_config({"vision": VISION, "language": LANGUAGE, "hidden": 40}, settings)
    config.perceiver_config.rms_norm_eps = epsilon
    theirs = connector(config)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    ours = PerceiverConnector(settings, VISION, LANGUAGE)
    copy_weights(ours, theirs, IDEFICS2_NAMES)
    found, wanted = ours(patches(), MASK), theirs(patches(), MASK)
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    other = PerceiverConnector(settings.model_copy(update={"norm_epsilon": 1e-1}), VISION, LANGUAGE)
    other.load_state_dict(ours.state_dict())
    assert (other(patches(), MASK) - wanted).abs().max() > 1e-3 * wanted.abs().max()


@pytest.mark.parametrize("settings", LATENTS)
def test_patches_beyond_a_picture_are_not_read_by_a_bit(settings: ConnectorSettings) -> None:
    connector = build_connector(settings, VISION, LANGUAGE, PATCHES)
    noise = torch.where(MASK[..., None], patches(), 1e3 * patches(seed=1))
    assert torch.equal(connector(noise, MASK), connector(patches(), MASK))
    alone = connector(patches()[1:2, : PATCHES // 4])
    assert torch.allclose(connector(patches(), MASK)[1:2], alone, atol=1e-6)
    assert not torch.allclose(connector(patches())[1:2], alone, atol=1e-3)


RESAMPLER_NAMES = {
    "blocks.": "layers.",
    ".0.context_layer_norm": ".attention.patch_norm",
    ".0.latents_layer_norm": ".attention.latent_norm",
    ".0.q_layer_norm": ".attention.query_norm",
    ".0.k_layer_norm": ".attention.key_norm",
    ".0.q_proj": ".attention.query",
    ".0.k_proj": ".attention.key",
    ".0.v_proj": ".attention.value",
    ".0.output_proj": ".attention.output",
    ".1.ln": ".mlp.norm",
    ".1.fc": ".mlp.up",
    ".1.c_proj": ".mlp.down",
    "layer_norm.": "norm.",  # the last one, when the others have their names
}


@pytest.mark.parametrize("qk_norms", [True, False])
def test_the_resampler_is_that_of_idefics(qk_norms: bool) -> None:
    from transformers import IdeficsConfig
    from transformers.models.idefics import perceiver

    vision: Any = {"embed_dim": VISION}
    norms: Any = {"use_resampler": True, "qk_layer_norms_perceiver": qk_norms}
    config = IdeficsConfig(vision_config=vision, perceiver_config=norms)
    resampler: Any = perceiver.IdeficsPerceiverResampler  # transformers is untyped
    theirs = resampler(config, VISION, depth=2, n_heads=2, head_dim=8, n_latents=5)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    ours = ResamplerConnector(RESAMPLER.model_copy(update={"qk_norms": qk_norms}), VISION)
    copy_weights(ours, theirs, RESAMPLER_NAMES)
    found, wanted = ours(patches()), theirs(patches())
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_idefics_resampler_has_its_126_million_parameters() -> None:
    with torch.device("meta"):
        connector = ResamplerConnector(ResamplerSettings(type="resampler"), vision_size=1280)
    assert round(sum(each.numel() for each in connector.parameters()) / 1e5) == 1260


def test_settings_written_before_the_epsilon_could_be_set_have_the_same_digest() -> None:
    assert "norm_epsilon" not in PERCEIVER.model_dump()
    changed = PERCEIVER.model_copy(update={"norm_epsilon": 1e-5})
    assert PerceiverSettings.model_validate(changed.model_dump()) == changed


def test_idefics2s_connector_has_its_743_million_parameters() -> None:
    with torch.device("meta"):
        settings = PerceiverSettings(type="perceiver", hidden_size=14336)
        connector = PerceiverConnector(settings, vision_size=1152, language_size=4096)
    assert sum(each.numel() for each in connector.mlp.parameters()) == 91_750_400
    assert sum(each.numel() for each in connector.parameters()) == 91_750_400 + 651_468_800


def test_latents_are_not_alike() -> None:
    found = PerceiverConnector(PERCEIVER, VISION, LANGUAGE)(patches())
    assert (found[:, 0] - found[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "patches", "words"),
    [
        (PixelShuffleSettings(type="pixel_shuffle", factor=4), 36, "4 does not divide .* 36 patches"),
        (PixelShuffleSettings(type="pixel_shuffle", factor=1), 37, "no class token"),
        (PerceiverSettings(type="perceiver", heads=5, kv_heads=2), 36, "kv_heads: 2 does not divide heads 5"),
    ],
)
def test_patches_that_cannot_be_joined_give_a_sentence(settings: ConnectorSettings, patches: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_connector(settings, VISION, LANGUAGE, patches)
