"""The operations of a step: PaLM's formula where it holds, torch's own count everywhere."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_builder import FAMILIES, VOCABULARY, make_batch, make_family, make_model, make_settings
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from carnac.core.batch import Batch
from carnac.model.build import build_model
from carnac.model.flops import count_flops
from carnac.model.language import Vocabulary
from carnac.model.multimodal import MultimodalModel
from carnac.model.settings import (
    AdapterSettings,
    ConnectorSettings,
    MlpSettings,
    ModelSettings,
    PerceiverSettings,
    PixelShuffleSettings,
    TowerSettings,
    VisionSettings,
)
from carnac.train.flops import known_peak, peak_flops
from carnac.train.settings import ComputeSettings

ONE_EACH = make_batch([[(40, 2)], [(40, 1)]])  # a piece per row: nothing masked but the future, nothing padded
CONNECTORS: dict[str, ConnectorSettings] = {
    "mlp": MlpSettings(hidden_size=48),
    "pixel_shuffle": PixelShuffleSettings(type="pixel_shuffle", factor=1),
    "perceiver": PerceiverSettings(type="perceiver", latents=4, depth=2, heads=2, head_size=8, kv_heads=1),
}
TOWER: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 16}
LORA = AdapterSettings(rank=4, vision=("q_proj", "fc1"), language=("q_proj", "v_proj"))
TRAINED: dict[str, dict[str, Any]] = {
    "all": {},
    "connector": {"trained": ("connector",)},
    "language": {"trained": ("language",)},
    "adapters": {"trained": ("connector", "added_tokens"), "adapters": LORA},
    "adapters of the language model": {
        "trained": ("connector", "added_tokens"),
        "adapters": LORA.model_copy(update={"vision": (), "dora": False}),
    },
}


def build(settings: ModelSettings) -> MultimodalModel:
    return build_model(settings, Vocabulary(size=VOCABULARY, pad_id=0, eos_id=1), 32, seed=0)


def counted_by_torch(model: MultimodalModel, batch: Batch) -> int:
    model.eval()
    # The fused kernel of the CPU is not in torch's tables; written out, attention is two products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        total, _ = model.loss(batch, batch.label_tokens, 0.0)
        total.backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


@pytest.mark.parametrize("trained", TRAINED)
@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("tower", ["siglip_vision_model", "clip_vision_model"])
def test_the_count_is_torchs_own(tower: str, connector: str, trained: str) -> None:
    settings = ModelSettings(
        vision=VisionSettings(type=tower, config={**TOWER, "intermediate_size": 64}),
        connector=CONNECTORS[connector],
        language=make_settings().language,
        **TRAINED[trained],
    )
    model = build(settings)
    assert count_flops(model)(ONE_EACH) == pytest.approx(counted_by_torch(model, ONE_EACH), rel=0.002)


GPT2 = TowerSettings(type="gpt2", config={"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 256})


@pytest.mark.parametrize("kind", ["gemma2", "qwen2", "gpt2", "dinov2"])
def test_other_families_too(kind: str) -> None:
    settings = make_settings(kind, **FAMILIES[kind]) if kind in FAMILIES else make_settings()
    if kind == "dinov2":
        settings = settings.model_copy(update={"vision": VisionSettings(type=kind, config=TOWER)})
    if kind == "gpt2":
        settings = settings.model_copy(update={"language": GPT2})
    model = build(settings)
    # Pieces no longer than the window: what a window hides is counted by torch, not by us.
    batch = make_batch([[(7, 1)], [(7, 0)]])
    assert count_flops(model)(batch) == pytest.approx(counted_by_torch(model, batch), rel=0.002)


def test_a_language_model_trained_whole_takes_palms_6n_plus_12lhqt() -> None:
    model = make_model(tie_word_embeddings=False)
    count = count_flops(model)
    config, layers = model.language.config, model.language.model.layers
    matrices = sum(parameter.numel() for parameter in layers.parameters() if parameter.ndim == 2)
    assert count.token == 6 * matrices
    assert count.label == 6 * model.language.lm_head.weight.numel()
    heads = config.num_attention_heads * config.head_dim
    assert count.pairs == {float("inf"): 12 * config.num_hidden_layers * heads}
    batch = make_batch([[(30, 0)]])
    wanted = 6 * matrices * 30 + 12 * config.num_hidden_layers * heads * 30**2 + count.label * batch.label_tokens
    assert count(batch) == wanted


def test_frozen_layers_below_a_trained_one_take_two_thirds_and_a_frozen_tower_one() -> None:
    def frozen(*trained: str) -> MultimodalModel:
        return build(make_settings().model_copy(update={"trained": trained}))

    whole, above = count_flops(make_model()), count_flops(frozen("connector"))
    assert above.token == pytest.approx(whole.token * 2 / 3)
    assert above.label == pytest.approx(whole.label * 2 / 3)
    assert above.pairs == whole.pairs
    only = count_flops(frozen("language"))
    # Nothing before the first layer asks for a gradient, but the embeddings do: they are the language model's.
    assert only.token == whole.token
    assert only.square < 0.42 * whole.square  # a third, and what never asks: the gradient of pixels


def test_padding_other_pieces_and_blank_squares_are_not_counted() -> None:
    count = count_flops(make_model())
    apart, together = make_batch([[(20, 1)], [(12, 0)]]), make_batch([[(20, 1), (12, 0)]])
    assert count(apart) == count(together)
    without = make_batch([[(20, 0), (12, 0)]])
    assert count(without) == count.token * 32 + count.label * without.label_tokens + sum(
        cost * (20**2 + 12**2) for cost in count.pairs.values()
    )


def test_windows_bound_what_a_token_reads() -> None:
    count = count_flops(build(make_settings("mistral", sliding_window=7)))
    assert set(count.pairs) == {7.0}
    longer = make_batch([[(40, 0)]])
    found = count(longer) - count.token * 40 - count.label * longer.label_tokens
    assert found == pytest.approx(count.pairs[7.0] * 40 * 7)
    mixed = count_flops(make_family("gemma3_text"))
    assert set(mixed.pairs) == {7.0, float("inf")}
    assert mixed.pairs[7.0] == pytest.approx(5 * mixed.pairs[float("inf")])


def test_experts_count_as_often_as_a_token_meets_them() -> None:
    counts = [
        count_flops(build(make_settings("mixtral", num_local_experts=4, num_experts_per_tok=number))).token
        for number in (1, 2, 4)
    ]
    each = 6 * 3 * 48 * 96 * 2  # three matrices, two layers
    assert [counts[1] - counts[0], counts[2] - counts[1]] == [each, 2 * each]


def test_counting_leaves_the_model_as_it_was() -> None:
    model = make_model().train()
    before = torch.get_rng_state()
    count_flops(model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H200", 989.4),
        ("NVIDIA GH200 480GB", 989.4),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("NVIDIA B200", 2250.0),
    ],
)
def test_peaks_of_gpus_are_known_by_torchs_names(name: str, tflops: float) -> None:
    assert known_peak(name) == pytest.approx(tflops * 1e12)


def test_a_peak_that_is_not_known_is_none_unless_the_recipe_says_it() -> None:
    cpu = torch.device("cpu")
    for name in ("A fine new one", "NVIDIA RTX A4000", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA L400"):
        assert known_peak(name) is None
    assert peak_flops(ComputeSettings(), cpu) is None
    assert peak_flops(ComputeSettings(precision="bf16"), cpu) is None
    assert peak_flops(ComputeSettings(peak_tflops=0.05), cpu) == pytest.approx(5e10)
