"""What a stage of training is given -> its model, ready to be trained: built or loaded, frozen, on its device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carnac.core.batch import Batch
from carnac.engine.manifest import Manifest
from carnac.jobs.models import InputSettings, write_inputs
from carnac.jobs.plan import Plan
from carnac.jobs.train_recipe import TrainRecipe, TrainStage
from carnac.model.parts import part_of
from carnac.sequence.tokenizer import LoadedTokenizer

if TYPE_CHECKING:
    from carnac.model.multimodal import MultimodalModel
    from carnac.train.checkpoint import Parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a stage trains on.

    `shards` are its sources by name; `origin` is the folder of the model that it starts from, None for a new one.
    """

    recipe: TrainRecipe
    stage: TrainStage
    plan: Plan
    shards: Mapping[str, Manifest]
    heldout: Manifest | None
    origin: Path | None

    @property
    def inputs(self) -> InputSettings:
        """How the inputs of the model are made."""
        conversations = any(manifest.counts.get("conversations") for manifest in self.shards.values())
        mix, pictures = self.stage.mix, self.stage.pictures
        return InputSettings(pictures=pictures, row_tokens=mix.row_tokens, conversations=conversations)

    @property
    def affecting(self) -> dict[str, Any]:
        """The settings that the model depends on; where checkpoints fall and what is looked at changes no weight.

        Settings that came later count where they are used, so that a model that was trained before them is still good.
        """
        stage, model = self.stage, self.recipe.model if self.origin is None else None
        unseen: Any = {"checkpoints": True, "monitor": True, "compute": {"peak_tflops"}}
        unused = {"trained"} if model is None or model.cross_attention else {"trained", "cross_attention"}
        return {
            "model": None if model is None else model.model_dump(mode="json", exclude=unused),
            "trained": list(stage.trained),
            "adapters": None if stage.adapters is None else stage.adapters.model_dump(mode="json"),
            "merge_adapters": stage.merge,
            "mix": stage.mix.affecting_batches(),
            "first_row": stage.first_row,
            "training": stage.training.model_dump(mode="json", exclude=unseen),
            "inputs": _affecting_inputs(self.inputs),
        }


def _affecting_inputs(inputs: InputSettings) -> dict[str, Any]:
    """Return the settings of inputs that a model depends on, those of native pictures only where they are native."""
    unused: Any = {} if inputs.pictures.aspect == "native" else {"pictures": {"aspect", "shortest_px"}}
    return inputs.model_dump(mode="json", exclude=unused)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model with its optimizer; what a batch costs it, and what its device can do per second, if that is known."""

    model: MultimodalModel
    parts: Parts
    flops: Callable[[Batch], float]
    peak_flops: float | None


def build(given: Given, words: LoadedTokenizer) -> Built:
    """Return the model that the first step begins with, on its device, and an optimizer without a memory."""
    import torch

    from carnac.model.flops import count_flops
    from carnac.model.precision import prepare_model
    from carnac.model.weights import load_weights, save_model
    from carnac.train.checkpoint import Parts
    from carnac.train.compute import choose_device
    from carnac.train.flops import peak_flops
    from carnac.train.optimizer import make_optimizer

    settings = given.stage.training
    compute = settings.compute
    torch.set_num_threads(settings.threads)
    model = _new_model(given, words)
    flops, device = count_flops(model), choose_device(compute)
    prepare_model(
        model,
        device=device,
        bf16=compute.precision == "bf16",
        activation_checkpointing=compute.activation_checkpointing,
        compile_layers=compute.compile,
    )

    def write(folder: Path) -> None:
        save_model(model, folder)
        write_inputs(folder, given.plan.tokenizer_file, given.inputs)

    parts = Parts(
        model=model,
        optimizer=make_optimizer(model, settings.optimizer, part_of),
        write_model=write,
        read_model=lambda folder: load_weights(model, folder),
    )
    return Built(model=model, parts=parts, flops=flops, peak_flops=peak_flops(compute, device))


def _new_model(given: Given, words: LoadedTokenizer) -> MultimodalModel:
    """Return the model that the first step begins with."""
    from carnac.model.build import build_model
    from carnac.model.language import Vocabulary
    from carnac.model.start import fit_vocabulary, start_from

    stage, origin, model = given.stage, given.origin, given.recipe.model
    # A random language model has a row for every id; a trained one is left as it is, rows are added beside it.
    is_random = origin is None and model is not None and model.language.type is not None
    vocabulary = Vocabulary(
        size=words.vocabulary_size,
        pad_id=words.pad,
        bos_id=words.begin,
        eos_id=words.end,
        added_ids=() if is_random else words.added_ids,
    )
    size_px, seed = stage.pictures.size_px, stage.training.seed
    if origin is None:
        assert model is not None
        changes = {"trained": stage.trained, "adapters": stage.adapters or model.adapters}
        native = stage.pictures.aspect == "native"
        return build_model(model.model_copy(update=changes), vocabulary, size_px, seed, native_aspect=native)
    started = start_from(
        origin,
        trained=stage.trained,
        adapters=stage.adapters,
        merge=stage.merge,
        image_size_px=size_px,
        seed=seed,
    )
    fit_vocabulary(started, vocabulary, seed)
    return started
