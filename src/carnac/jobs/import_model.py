"""A folder of another library's format to a model's folder of our own: weights, tokenizer, how inputs are made."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from carnac.core.errors import InputError
from carnac.jobs.models import InputSettings, write_inputs
from carnac.model.new_folder import check_free, new_folder
from carnac.sequence.pretrained_tokenizer import read_tokenizer_folder
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import FILE_NAME, LoadedTokenizer

LONGEST = 2048  # positions of a row where the language model names no longest position


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A model's folder made from another format. `notes` are sentences about what carnac does otherwise."""

    folder: Path
    parameters: int
    notes: tuple[str, ...]


def import_model(folder: Path, out: Path) -> Imported:
    """Write the model of `folder`, as transformers saves it, into `out`, ready for `carnac chat` and further use.

    Knows Idefics, Idefics2, Idefics3, SmolVLM and LLaVA. Raises InputError with a sentence where `folder` is not such a
    model, whole, or does something ours cannot.
    """
    from carnac.model.formats.folders import FORMAT_OF, language_of, read_folder
    from carnac.model.formats.pictures import read_pictures
    from carnac.model.vision import square_px
    from carnac.model.weights import save_model

    check_free(out)
    model, config = read_folder(folder)
    pictures, notes = read_pictures(
        folder,
        FORMAT_OF[config.model_type],
        size_px=square_px(model.vision.config),
        patch_px=model.vision.config.patch_size,
        tokens=model.tokens_per_image,
        model_type=model.vision.config.model_type,
    )
    # Idefics' configuration names no image token: its processor looks for `<image>`.
    image_id = getattr(config, "image_token_id", None)
    words = _read_tokenizer(folder, pictures, image_id, model.language.config.vocab_size)
    longest = int(getattr(language_of(config), "max_position_embeddings", 0) or LONGEST)
    with new_folder(out) as partial, tempfile.TemporaryDirectory() as temporary:
        save_model(model, partial)
        path = Path(temporary) / FILE_NAME
        path.write_text(words.to_json(), encoding="utf-8")
        # One that came with a chat template was trained to be asked in turns.
        inputs = InputSettings(pictures=pictures, row_tokens=longest, conversations=words.roles.template is not None)
        write_inputs(partial, path, inputs)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Imported(folder=out, parameters=parameters, notes=tuple(notes))


def _read_tokenizer(folder: Path, pictures: PictureSettings, image_id: int | None, rows: int) -> LoadedTokenizer:
    words = read_tokenizer_folder(folder, pictures)
    if image_id is not None and words.image != image_id:
        raise InputError(
            f"{folder / FILE_NAME}: {words.roles.image} has id {words.image}, config.json says {image_id}: the "
            "tokenizer of another model, or one whose tokenizer_config.json does not name its image_token."
        )
    if words.vocabulary_size > rows:
        added = ", ".join(words.roles.added) or "none"
        raise InputError(
            f"{folder / FILE_NAME}: has {words.vocabulary_size} tokens ({added} had to be added), the model knows "
            f"{rows}: the tokenizer of another model."
        )
    return words
