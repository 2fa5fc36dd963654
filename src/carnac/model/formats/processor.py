"""What turns texts and pictures into a served model's inputs: tokenizer, processor, chat template.

Written so that transformers' processor makes the ids that `sequence.layout` made in training. Its pictures differ by
rounding and by the decoder's shortcuts; the proof says by how much.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from carnac.core.errors import InputError
from carnac.model.formats import FormatName, idefics2_processor, idefics_processor
from carnac.model.formats.description import Description
from carnac.model.formats.llava import select_strategy
from carnac.sequence.chat_template import DOCUMENTS, built_in, variables
from carnac.sequence.conversation import begins_itself, stop_ids
from carnac.sequence.marks import FAKE, IDEFICS3_IMAGE
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer


def write_processor(
    described: Description, name: FormatName, tokenizer: LoadedTokenizer, out: Path, *, conversations: bool = False
) -> None:
    """Write tokenizer, processor and chat template of a model into `out`, the folder with its configuration.

    Where it was trained on `conversations`, the template is the one they were written with, and generation ends where
    an answer does. Raises InputError where the format's processor wants another image token than the tokenizer has.
    """
    # A processor begins what its template writes as it begins any text, unless the template has done so.
    begins = tokenizer.roles.begin if not conversations or begins_itself(tokenizer) else None
    words = _words(tokenizer, described, begins)
    if name == "idefics":  # its processor writes this name before every text: with none it would write "None"
        words.bos_token = begins or ""
    template = chat_template(tokenizer, conversations=conversations)
    processor = _processor(described, name, words, template, tokenizer)
    if len(words) > tokenizer.vocabulary_size:
        raise InputError(
            f"the {name} format's processor adds {len(words) - tokenizer.vocabulary_size} tokens that the model has no "
            "rows for; the tokenizer was made without the marks of its pictures. Train the model again."
        )
    processor.save_pretrained(out)
    # Where a tokenizer names its image token, Idefics2's processor asks it for the mark too.
    named = {"image_token": tokenizer.roles.image} | ({"image_boundary_token": FAKE} if name == "idefics2" else {})
    _complete(out / "tokenizer_config.json", named)
    # Since transformers 5 the processor's own file holds this too; other readers look for it where it always was.
    processor.image_processor.save_pretrained(out)
    ends = stop_ids(tokenizer) if conversations else ()
    if len(ends) > 1:
        _stop_at(out / "generation_config.json", ends)


def chat_template(tokenizer: LoadedTokenizer, *, conversations: bool = False) -> str:
    """Return the Jinja template that writes a conversation as `carnac chat` does."""
    roles, template = tokenizer.roles, tokenizer.template
    if not conversations:
        return built_in(DOCUMENTS, begin=roles.begin, end=roles.end, image=roles.image).text
    # What the template asks for and the exported tokenizer has under no name, or another: said in the template.
    given = {"bos_token": roles.begin, "eos_token": roles.end, "pad_token": roles.pad}
    asked = variables(template.text)
    return (
        "".join(
            f"{{% set {name} = {token!r} %}}"
            for name, token in template.special_tokens
            if name in asked and given.get(name) != token
        )
        + template.text
    )


def _words(tokenizer: LoadedTokenizer, described: Description, begins: str | None) -> Any:
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    roles = tokenizer.roles
    words.post_processor = (
        processors.ByteLevel(trim_offsets=False)
        if begins is None
        else processors.TemplateProcessing(
            single=f"{begins} $A", pair=f"{begins} $A $B", special_tokens=[(begins, tokenizer.begin)]
        )
    )
    wrapper: Any = PreTrainedTokenizerFast  # transformers is untyped
    return wrapper(
        tokenizer_object=words,
        bos_token=roles.begin,
        eos_token=roles.end,
        pad_token=roles.pad,
        additional_special_tokens=[roles.image, *roles.marks],
        model_max_length=int(getattr(described.language, "max_position_embeddings", 0) or 0) or None,
        padding_side="left",  # what generation of several prompts at once wants
        clean_up_tokenization_spaces=False,
    )


def _complete(path: Path, named: Mapping[str, str]) -> None:
    """Write the names that transformers 4 knows (5 reads them too), and which tokens stand for and around pictures."""
    values = {**json.loads(path.read_text(encoding="utf-8")), **named}
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    values["additional_special_tokens"] = values.pop("extra_special_tokens", [])
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _stop_at(path: Path, ends: Sequence[int]) -> None:
    """Let generation end at each of `ends`: the end of a document and that of a turn need not be one token."""
    values = {**json.loads(path.read_text(encoding="utf-8")), "eos_token_id": list(ends)}
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _processor(described: Description, name: FormatName, words: Any, template: str, tokenizer: LoadedTokenizer) -> Any:
    if name == "llava":
        return _llava(described, words, template, tokenizer)
    makers = {"idefics": idefics_processor, "idefics2": idefics2_processor}
    return (
        makers[name].make_processor(described, words, template)
        if name in makers
        else _idefics3(described, words, template)
    )


def _idefics3(described: Description, words: Any, template: str) -> Any:
    from transformers import Idefics3ImageProcessorPil, Idefics3Processor

    pictures = described.pictures
    if IDEFICS3_IMAGE not in words.get_vocab():
        raise InputError(
            f"the idefics3 format's processor calls the image token {IDEFICS3_IMAGE}; the tokenizer does not"
        )
    tiled = pictures.max_tiles > 1
    images = Idefics3ImageProcessorPil(
        # Without tiles a picture goes to its square in one step, not by way of a rectangle.
        do_resize=tiled,
        do_image_splitting=tiled,
        size={"longest_edge": pictures.max_tiles * pictures.size_px},
        max_image_size={"longest_edge": pictures.size_px},
        **_values(pictures),
    )
    return Idefics3Processor(images, words, image_seq_len=pictures.square_tokens, chat_template=template)


def _llava(described: Description, words: Any, template: str, tokenizer: LoadedTokenizer) -> Any:
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    pictures = described.pictures
    square = {"height": pictures.size_px, "width": pictures.size_px}
    images = CLIPImageProcessorPil(
        do_resize=True, size=square, do_center_crop=False, crop_size=square, **_values(pictures)
    )
    processor: Any = LlavaProcessor
    return processor(
        images,
        words,
        patch_size=pictures.patch_px,
        vision_feature_select_strategy=select_strategy(described),
        num_additional_image_tokens=described.leading_tokens or 0,
        image_token=tokenizer.roles.image,
        chat_template=template,
    )


def _values(pictures: PictureSettings) -> dict[str, Any]:
    return {
        "resample": int(Image.Resampling[pictures.resample.upper()]),
        "image_mean": list(pictures.mean),
        "image_std": list(pictures.std),
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
    }
