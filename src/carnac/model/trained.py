"""Trained backbones: a folder as transformers saves it, or a name on its hub, to a module with its weights in fp32.

No code is read from the folder and nothing is unpickled: transformers' own classes, weights in safetensors only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from carnac.core.errors import InputError
from carnac.model.settings import TowerSettings
from carnac.model.towers import Part

# Heads that only a pooled vector would need: absent from many folders, and nothing here reads what they make.
UNREAD = ("pooler.",)


def load_trained(part: Part, tower: TowerSettings, config: Any) -> Any:
    """Return the backbone of a folder or hub name with its weights, `config` being what `towers.trained_config` found.

    Raises InputError where weights are missing, damaged or of another model. Weights that the backbone has no place
    for (a contrastive model's other half, a classifier) are left out.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM if part == "language" else AutoModel
    place = tower.folder or tower.hub
    try:
        with _quiet():
            model, report = auto.from_pretrained(
                str(place),
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=tower.folder is not None,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        detail = " ".join(str(error).split())[:300]
        raise InputError(
            f"model.{part}: {place}: the weights of this {config.model_type} cannot be read: {detail}"
        ) from error
    missing = sorted(name for name in report["missing_keys"] if not name.startswith(UNREAD))
    wrong = missing or sorted(str(each[0]) for each in report["mismatched_keys"])
    if wrong:
        raise InputError(
            f"model.{part}: {place}: weights of another model: {len(wrong)} tensors of this {config.model_type} are "
            f"missing or of another shape, first {wrong[0]}"
        )
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing bars and tables of tensors that are left out on purpose."""
    from transformers.utils import logging as their_logging

    logging: Any = their_logging  # transformers is untyped
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
