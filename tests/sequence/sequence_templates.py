"""Chat templates as models are published with them, written out, and tokenizers of those models' kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sequence_folders import byte_level, metaspace
from sequence_pages import real_texts
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (  # SmolLM2's
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = "
    "messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ "
    "raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if "
    "loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "
    "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if "
    "message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == "
    "'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif "
    "%}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ "
    "raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if "
    "(message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}{% if "
    "add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
LLAMA_3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
IDEFICS3 = (  # and SmolVLM's, which begins with <|im_start|>
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == "
    "'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}"
    "{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
LLAVA = (  # LLaVA 1.5's: pictures first, and no end
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Render all images first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ "
    "'<image>\n' }}{% endfor %}{# Render all text next #}{% if message['role'] != 'assistant' %}{% for content in "
    "message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}{% else %}{% "
    "for content in message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}{{ content['text'] + "
    "' '}}{% endgeneration %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}"
    "{% endif %}"
)
LLAVA_WITH_END = LLAVA.replace("+ ' '}}{% endgeneration %}", "+ eos_token}}{% endgeneration %}")
# Qwen3's way, in short: what was thought before the last question is left out again.
THINKING = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' }}{%- if message.role == 'assistant' and "
    "loop.last %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{{- message.content + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


def gemma_like() -> Tokenizer:
    """A space is a letter, put in by the normalizer; nothing splits words; markers are tokens of the vocabulary."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))  # noqa: S106 - no password
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    special += [f"<0x{number:02X}>" for number in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False, max_token_length=12)
    tokenizer.train_from_iterator([text[:300] for text in real_texts()[:300]], trainer)
    # Gemma's table has line ends and tags as added tokens that are not special.
    plain = ("\n", "\n\n", "\n\n\n", "<table>")
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in plain])
    return tokenizer


def legacy_metaspace() -> Tokenizer:
    """Llama 2's own file: a space is put before every stretch between special tokens."""
    tokenizer = metaspace()
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return tokenizer


def _chatml() -> Tokenizer:
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


def _llama_3() -> Tokenizer:
    tokenizer = byte_level(begin=True)
    tokenizer.add_special_tokens(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"])
    return tokenizer


def _idefics3() -> Tokenizer:
    tokenizer = _chatml()
    tokenizer.add_special_tokens(["<end_of_utterance>", "<image>"])
    return tokenizer


def _stripping() -> Tokenizer:
    """Phi-3's way: its tokens take in the spaces behind them."""
    tokenizer = metaspace()
    names = ("<|im_start|>", "<|im_end|>")
    tokenizer.add_special_tokens([AddedToken(name, rstrip=True, special=True, normalized=False) for name in names])
    return tokenizer


def _ordinary() -> Tokenizer:
    """Tokens that are added but not special: the library finds them in any text."""
    tokenizer = byte_level()
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"])
    return tokenizer


LLAMA_NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
GEMMA_NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
CHATML_NAMES = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
MODELS: dict[str, tuple[Any, str, dict[str, str]]] = {
    "chatml": (_chatml, CHATML, CHATML_NAMES),
    "llama 2": (metaspace, LLAMA_2, LLAMA_NAMES),
    "llama 2, legacy": (legacy_metaspace, LLAMA_2, LLAMA_NAMES),
    "llama 3": (_llama_3, LLAMA_3, {"bos_token": "<s>", "eos_token": "<|eot_id|>"}),
    "gemma": (gemma_like, GEMMA, GEMMA_NAMES),
    "idefics3": (_idefics3, IDEFICS3, {**CHATML_NAMES, "eos_token": "<end_of_utterance>"}),
    "llava": (legacy_metaspace, LLAVA_WITH_END, LLAMA_NAMES),
    "stripping": (_stripping, CHATML, {**LLAMA_NAMES, **CHATML_NAMES}),
    "ordinary": (_ordinary, CHATML, {"eos_token": "<|endoftext|>"}),
}
TAKES_LISTS = ("idefics3", "llava")
NO_SYSTEM = ("gemma",)


def save_model(name: str, folder: Path) -> Any:
    """Write a tokenizer's folder with its chat template, as transformers does; return transformers' tokenizer."""
    make, template, names = MODELS[name]
    tokenizer: Any = PreTrainedTokenizerFast
    theirs = tokenizer(tokenizer_object=make(), chat_template=template, **names)
    theirs.save_pretrained(folder)
    return theirs
