"""How a conversation is written as one text: a Jinja template in transformers' form, run in Jinja's immutable sandbox.

Flow in: messages. Flow out: text. A template comes from a folder and may be anyone's: it sees texts, lists and tables
only, and can neither write nor reach beyond them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from carnac.core.errors import InputError

if TYPE_CHECKING:
    from jinja2 import Template

ROLES = ("system", "user", "assistant")
USER, ASSISTANT, SYSTEM = "<|user|>", "<|assistant|>", "<|system|>"
ROLE_TOKENS = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
# What templates that ask for the day are told, always: a batch must not depend on the day on which it is made. It is
# the day that Llama 3's template writes where there is no clock.
TODAY = datetime(2024, 7, 26)

# "User: question\nAssistant: answer<end>", after the begin token; no space before a picture, as in Idefics3's.
PLAIN = """\
{{- BEGIN -}}
{%- for message in messages -%}
  {{- message['role'] | capitalize + ':' -}}
  {%- set parts = [{'type': 'text', 'text': message['content']}] if message['content'] is string \
else message['content'] -%}
  {%- for part in parts -%}
    {%- if part['type'] == 'image' -%}
      {{- IMAGE -}}
    {%- else -%}
      {{- (' ' if loop.first else '') + part['text'] -}}
    {%- endif -%}
  {%- endfor -%}
  {{- END if message['role'] == 'assistant' else '\\n' -}}
{%- endfor -%}
{{- 'Assistant:' if add_generation_prompt -}}
"""
# The same with one token for each role: 3 tokens an exchange instead of about 15, and no text can forge a turn.
TOKENS = """\
{{- BEGIN -}}
{%- for message in messages -%}
  {{- '<|' + message['role'] + '|>' -}}
  {%- set parts = [{'type': 'text', 'text': message['content']}] if message['content'] is string \
else message['content'] -%}
  {%- for part in parts -%}
    {{- IMAGE if part['type'] == 'image' else part['text'] -}}
  {%- endfor -%}
  {{- END if message['role'] == 'assistant' -}}
{%- endfor -%}
{{- '<|assistant|>' if add_generation_prompt -}}
"""
# What a model of documents is exported with: pictures and texts in order, an answer right behind its question, a blank
# line between texts. No roles are written: documents have none. The comment says so to whoever reads it back.
FOR_DOCUMENTS = "{#- documents: no roles -#}"
DOCUMENTS = """\
{#- documents: no roles -#}
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
BETWEEN_TEXTS = "\n\n"  # in documents


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A turn of a conversation: texts and encoded pictures, in order, of one of `ROLES`."""

    role: str
    content: tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTemplate:
    """A template and what it may write beside the messages.

    text            Jinja, in the form that transformers reads
    special_tokens  (name, token) of the variables it knows: bos_token, eos_token and the like
    image           the token that stands for a picture
    """

    text: str
    special_tokens: tuple[tuple[str, str], ...] = ()
    image: str

    def render(self, messages: Sequence[Mapping[str, Any]], *, prompt: bool) -> str:
        """Return the text of `messages`; with `prompt` it goes on to where an answer begins.

        Each message is a table of `role` and `content`: a text, or a list of `{"type": "text", "text": ...}` and
        `{"type": "image"}`. Raises InputError where the text is no template; what the template itself raises (it may
        refuse messages) is let through.
        """
        return compiled(self.text).render(
            messages=list(messages),
            tools=None,
            documents=None,
            add_generation_prompt=prompt,
            **dict(self.special_tokens),
        )


def built_in(text: str, *, begin: str | None, end: str, image: str) -> ChatTemplate:
    """Return `PLAIN`, `TOKENS` or `DOCUMENTS` with the special tokens of a tokenizer written out."""
    for name, value in {"BEGIN": begin or "", "END": end, "IMAGE": image, "BETWEEN": BETWEEN_TEXTS}.items():
        text = text.replace(f" {name} ", f" {value!r} ").replace(f"-{name} ", f"-{value!r} ")
    return ChatTemplate(text=text, image=image)


@lru_cache(maxsize=16)
def compiled(text: str) -> Template:
    """Return a template made ready, with the filters and functions that transformers gives templates.

    Raises InputError where it is none.
    """
    from jinja2 import TemplateError

    environment = _environment()
    try:
        found: Template = environment.from_string(text)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise InputError(
            f"the chat template is no Jinja{f' (line {line})' if line else ''}: {error}. Wanted one that transformers "
            "reads, in chat_template.jinja or tokenizer_config.json of the tokenizer's folder."
        ) from None
    return found


def variables(text: str) -> set[str]:
    """Return the names that a template takes from outside: of special tokens, among others."""
    from jinja2.meta import find_undeclared_variables

    return find_undeclared_variables(_environment().parse(text))


@lru_cache(maxsize=1)
def _environment() -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}` says which text is the model's; what stands there is rendered as it is."""

        tags = {"generation"}  # noqa: RUF012 -- Jinja's protocol

        def parse(self, parser: Any) -> nodes.Node:
            """Return the block's own nodes."""
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    class PlainNamespace(Namespace):
        """A namespace without hidden names, which could reach the object behind it."""

        def __setitem__(self, name: str, value: Any) -> None:
            if name.startswith("_"):
                raise SecurityError(f"a chat template may not set {name!r}")
            super().__setitem__(name, value)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _raiser(TemplateError),
        "strftime_now": TODAY.strftime,
        "dict": _table,
        "namespace": PlainNamespace,
    }
    return environment


def _raiser(kind: type[Exception]) -> Callable[[str], None]:
    def raise_exception(message: str) -> None:
        raise kind(message)

    return raise_exception


def _table(*given: Any, **named: Any) -> dict[Any, Any]:
    return dict(*given, **named)  # a function: the class itself would lend its methods


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
