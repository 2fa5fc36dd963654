"""Folders of other models' tokenizers, as transformers saves them: byte-level like GPT-2, metaspace like Llama 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sequence_pages import real_texts
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast


def byte_level(texts: list[str] | None = None, *, begin: bool = False) -> Tokenizer:
    """The kind of GPT-2, Qwen2, SmolLM2; with `begin`, of Llama 3, whose post-processor puts a begin token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(real_texts() if texts is None else texts, trainer)
    if begin:
        tokenizer.post_processor = _begin_before(tokenizer)
    return tokenizer


def metaspace(scheme: str = "first") -> Tokenizer:
    """The kind of Llama 2 and Mistral: a space is a letter, special tokens are words, bytes a fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme=scheme, split=True)
    steps = [
        decoders.Replace("\u2581", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(content=" ", left=1, right=0),
    ]
    tokenizer.decoder = decoders.Sequence(steps)
    special = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(real_texts(), trainer)
    tokenizer.post_processor = _begin_before(tokenizer)
    return tokenizer


def double_line_ends() -> Tokenizer:
    """A byte-level tokenizer to which two line ends are one token."""
    return byte_level([*real_texts(), *["\n\n"] * 500])


def save(tokenizer: Tokenizer, folder: Path, **given: Any) -> Path:
    """Write a folder as transformers does."""
    names = {"eos_token": "<|endoftext|>"} | given
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]
    wrapped.save_pretrained(folder)
    return folder


def _begin_before(tokenizer: Tokenizer) -> Any:
    return processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
