"""What turns texts and pictures into a served model's inputs: tokenizer, processor, chat template.

Written so that transformers' processor makes the ids that `sequence.layout` made in training. Its pictures differ by
rounding and by the decoder's shortcuts; the proof says by how much.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from carnac.core.errors import InputError
from carnac.model.formats import FormatName
from carnac.model.formats.description import Description
from carnac.model.formats.llava import select_strategy
from carnac.sequence.layout import BETWEEN_TEXTS
from carnac.sequence.marks import IDEFICS3_IMAGE
from carnac.sequence.settings import PictureSettings
from carnac.sequence.tokenizer import LoadedTokenizer

# The words of a conversation as `carnac chat` lays them out: pictures and texts in order, an answer right behind its
# question, a blank line between texts. No roles are written: documents, which the model was trained on, have none.
CHAT_TEMPLATE = """\
{%- set last = namespace(is_text=false) -%}
{{- BEGIN -}}
{%- for message in messages -%}
  {%- set content = message['content'] -%}
  {%- for part in ([{'type': 'text', 'text': content}] if content is string else content) -%}
    {%- if part['type'] == 'image' -%}
      {{- IMAGE -}}
      {%- set last.is_text = false -%}
    {%- elif part['type'] == 'text' -%}
      {{- BETWEEN if last.is_text and message['role'] != 'assistant' -}}
      {{- part['text'] -}}
      {%- set last.is_text = true -%}
    {%- endif -%}
  {%- endfor -%}
{%- endfor -%}
"""


def write_processor(described: Description, name: FormatName, tokenizer: LoadedTokenizer, out: Path) -> None:
    """Write tokenizer, processor and chat template of a model into `out`.

    Raises InputError where the format's processor wants another image token than the tokenizer has.
    """
    words = _words(tokenizer, described)
    template = chat_template(tokenizer)
    processor = (
        _idefics3(described, words, template) if name == "idefics3" else _llava(described, words, template, tokenizer)
    )
    if len(words) > tokenizer.vocabulary_size:
        raise InputError(
            f"the {name} format's processor adds {len(words) - tokenizer.vocabulary_size} tokens that the model has no "
            "rows for; the tokenizer was made without the marks of its pictures. Train the model again."
        )
    processor.save_pretrained(out)
    _complete(out / "tokenizer_config.json", tokenizer.roles.image)
    # Since transformers 5 the processor's own file holds this too; other readers look for it where it always was.
    processor.image_processor.save_pretrained(out)


def chat_template(tokenizer: LoadedTokenizer) -> str:
    """Return the Jinja template that writes a conversation as `carnac chat` does."""
    values = {"BEGIN": tokenizer.roles.begin or "", "IMAGE": tokenizer.roles.image, "BETWEEN": BETWEEN_TEXTS}
    template = CHAT_TEMPLATE
    for name, value in values.items():
        template = template.replace(name, repr(value))
    return template


def _words(tokenizer: LoadedTokenizer, described: Description) -> Any:
    from tokenizers import Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer.from_str(tokenizer.tokenizer.to_str())
    begin, roles = tokenizer.roles.begin, tokenizer.roles
    words.post_processor = (
        processors.ByteLevel(trim_offsets=False)
        if begin is None
        else processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A $B", special_tokens=[(begin, tokenizer.begin)]
        )
    )
    wrapper: Any = PreTrainedTokenizerFast  # transformers is untyped
    return wrapper(
        tokenizer_object=words,
        bos_token=begin,
        eos_token=roles.end,
        pad_token=roles.pad,
        additional_special_tokens=[roles.image, *roles.marks],
        model_max_length=int(getattr(described.language, "max_position_embeddings", 0) or 0) or None,
        padding_side="left",  # what generation of several prompts at once wants
        clean_up_tokenization_spaces=False,
    )


def _complete(path: Path, image: str) -> None:
    """Write the names that transformers 4 knows (5 reads them too), and which token stands for pictures."""
    values = json.loads(path.read_text(encoding="utf-8"))
    values["image_token"] = image
    values["tokenizer_class"] = "PreTrainedTokenizerFast"
    values["additional_special_tokens"] = values.pop("extra_special_tokens", [])
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
