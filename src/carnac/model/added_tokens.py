"""Tokens added to a language model: trainable rows that replace rows of its tables by id, the tables untouched.

A frozen language model stays frozen to the bit, and only the few new rows are trained (Idefics, Laurencon et al. 2023,
arXiv 2306.16527, trains `<image>` and `<fake_token_around_image>` so). Ids may lie inside a table that was padded or
beyond it. Legend of shapes: A added tokens, B rows of the language model's own tables, K rows with the added ones,
D width of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from carnac.core.errors import InputError

# A new row is drawn around the mean of the model's rows: such a token is neither likely nor surprising at first, while
# rows as far out as the model's own take probability from all others (Hewitt 2021, "Initializing new word embeddings").
SPREAD = 0.1  # of the rows' standard deviation; 0 would start all added tokens as one


class AddedEmbedding(nn.Module):
    """The input table of a language model with replaced rows: ids [...] -> [..., D], scaled as the model scales."""

    place: torch.Tensor

    def __init__(self, base: nn.Embedding, added_ids: Sequence[int]) -> None:
        super().__init__()
        self.base = base
        self.added = nn.Embedding(len(added_ids), base.embedding_dim, device=base.weight.device)
        place = torch.full((_total_rows(base.num_embeddings, added_ids),), -1)
        place[torch.tensor(added_ids)] = torch.arange(len(added_ids))
        self.register_buffer("place", place.to(base.weight.device), persistent=False)  # id -> row of `added`, or -1

    @property
    def weight(self) -> torch.Tensor:
        """The base table [B, D], without the added rows."""
        return self.base.weight

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the rows of ids [...] as [..., D]."""
        place = self.place[input_ids]
        added = self.added(place.clamp(min=0))
        # Gemma's tables scale what they look up, and the table of an export scales the added rows with the others.
        scale = getattr(self.base, "embed_scale", None)
        if scale is not None:
            added = added * (scale.to(added.dtype) if isinstance(scale, torch.Tensor) else scale)
        rows: torch.Tensor = self.base(input_ids.clamp(max=self.base.num_embeddings - 1))
        return torch.where((place >= 0)[..., None], added.to(rows.dtype), rows)


class AddedHead(nn.Module):
    """The output layer of a language model with replaced rows: [..., D] -> logits [..., K].

    It stands in the layer's own place, so that what a family does to its logits (Gemma 2 caps them) still comes after.
    """

    ids: torch.Tensor  # of the added rows, in their order
    inside: torch.Tensor  # the added rows that replace a row of the layer
    beyond: torch.Tensor  # the others, by rising id

    def __init__(self, base: nn.Linear, added_ids: Sequence[int]) -> None:
        super().__init__()
        self.base = base
        self.added = nn.Linear(base.in_features, len(added_ids), bias=False, device=base.weight.device)
        rows = base.out_features
        inside = [row for row, token in enumerate(added_ids) if token < rows]
        beyond = sorted((row for row, token in enumerate(added_ids) if token >= rows), key=lambda row: added_ids[row])
        for name, numbers in (("ids", list(added_ids)), ("inside", inside), ("beyond", beyond)):
            numbered = torch.tensor(numbers, dtype=torch.long, device=base.weight.device)
            self.register_buffer(name, numbered, persistent=False)

    @property
    def weight(self) -> torch.Tensor:
        """The base rows [B, D], without the added ones."""
        return self.base.weight

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits [..., K] of hidden states [..., D]."""
        logits = self.base(hidden)
        # A frozen language model may lie in half precision, what is trained does not.
        added = self.added(hidden.to(self.added.weight.dtype)).to(logits.dtype)
        if len(self.inside):
            replaced = added[..., self.inside]
            if self.base.bias is not None:
                replaced = replaced + self.base.bias[self.ids[self.inside]]
            # In place: the logits are the largest tensor of a step.
            logits = logits.index_copy_(-1, self.ids[self.inside], replaced)
        # One copy of the logits: padding them and filling in cost 13 % of the head's time, this 2 to 4 %.
        return torch.cat([logits, added[..., self.beyond]], dim=-1) if len(self.beyond) else logits


def add_tokens(model: Any, added_ids: Sequence[int]) -> None:
    """Give a causal language model trainable rows for `added_ids`; without ids, leave it as it is.

    The head's rows are the table's where the model ties the two. Raises InputError where the model's tables do not
    allow it: ids that leave a gap behind the table, or a table that is not an embedding.
    """
    if not added_ids:
        return
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    kind = model.config.model_type
    _check_ids(table, head, added_ids, kind)
    embedding, output = AddedEmbedding(table, added_ids), AddedHead(head, added_ids)
    _draw(embedding.added.weight, table.weight)
    if head.weight is table.weight:
        output.added.register_parameter("weight", cast("nn.Parameter", embedding.added.weight))
    else:
        _draw(output.added.weight, head.weight)
    model.set_input_embeddings(embedding)
    model.set_output_embeddings(output)
    model.config.vocab_size = len(embedding.place)


@torch.no_grad()
def extend_tokens(model: Any, new_ids: Sequence[int]) -> None:
    """Give a causal language model, which may have added tokens, trainable rows for `new_ids` too, behind its own.

    The rows that are there keep their values. Raises InputError as `add_tokens` does.
    """
    if not new_ids:
        return
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    old_ids = added_ids_of(model)
    if old_ids:
        model.set_input_embeddings(embedding.base)
        model.set_output_embeddings(head.base)
    add_tokens(model, (*old_ids, *new_ids))
    if old_ids:
        model.get_output_embeddings().added.weight[: len(old_ids)] = head.added.weight
        model.get_input_embeddings().added.weight[: len(old_ids)] = embedding.added.weight


def added_ids_of(model: Any) -> tuple[int, ...]:
    """Return the ids of the added tokens of a language model, in the order of their rows."""
    head = model.get_output_embeddings()
    return tuple(head.ids.tolist()) if isinstance(head, AddedHead) else ()


def base_rows(model: Any) -> int:
    """Return B, the rows of the language model's own table."""
    return int(model.get_input_embeddings().weight.shape[0])


def added_parameters(model: Any) -> list[torch.Tensor]:
    """Return the rows of the added tokens: none, one table, or two where table and head are not tied."""
    found: dict[int, torch.Tensor] = {}
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        if isinstance(module, AddedEmbedding | AddedHead):
            found[id(module.added.weight)] = module.added.weight
    return list(found.values())


def language_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the language model's tensors of a model under transformers' own names, added rows in their [K, D] tables.

    Tied weights come once, under the name of the table. Nothing is copied but tables with added rows.
    """
    language = model.language
    tensors: dict[str, torch.Tensor] = {}
    wrapped = {name: each for name, each in language.named_modules() if isinstance(each, AddedEmbedding | AddedHead)}
    twice = {name for name, _ in language.named_parameters(remove_duplicate=False)}
    twice -= {name for name, _ in language.named_parameters()}
    for name, tensor in language.state_dict().items():
        owner = next((prefix for prefix in wrapped if name.startswith(f"{prefix}.")), None)
        if name in twice:
            continue
        if owner is None:
            tensors[name] = tensor
        elif not name.endswith(".added.weight"):
            inner = name.removeprefix(f"{owner}.base.")
            tensors[f"{owner}.{inner}"] = _grown(wrapped[owner], inner, tensor)
    return tensors


def vision_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the vision tower's tensors of a model under transformers' own names."""
    return dict(model.vision.state_dict())


def _grown(module: AddedEmbedding | AddedHead, name: str, tensor: torch.Tensor) -> torch.Tensor:
    rows = len(module.place) if isinstance(module, AddedEmbedding) else len(tensor) + len(module.beyond)
    grown = torch.cat([tensor, tensor.new_zeros(rows - len(tensor), *tensor.shape[1:])])
    if name == "weight":
        ids = module.ids if isinstance(module, AddedHead) else _ids(module.place)
        grown[ids] = module.added.weight.detach().to(grown.dtype)
    return grown


def _ids(place: torch.Tensor) -> torch.Tensor:
    """Return the ids of rows 0, 1, 2 ... of the added table: the inverse of `place`."""
    ids = torch.nonzero(place >= 0)[:, 0]
    return ids[place[ids].argsort()]


def _total_rows(rows: int, added_ids: Sequence[int]) -> int:
    return max(rows, max(added_ids) + 1)


@torch.no_grad()
def _draw(rows: torch.Tensor, table: torch.Tensor) -> None:
    noise = torch.randn(rows.shape, device=rows.device, dtype=torch.float32)
    rows.copy_(table.float().mean(0) + SPREAD * table.float().std(0) * noise)


def _check_ids(table: Any, head: Any, added_ids: Sequence[int], kind: str) -> None:
    if not isinstance(table, nn.Embedding) or not isinstance(head, nn.Linear):
        raise InputError(f"model.language: {kind} has no table and output layer of its own: no tokens can be added")
    scales = type(table) is not nn.Embedding and not hasattr(table, "embed_scale")
    if scales or table.embedding_dim != head.in_features:
        raise InputError(f"model.language: {kind} looks up its tokens in a way of its own: no tokens can be added")
    rows = table.num_embeddings
    beyond = sorted(each for each in added_ids if each >= rows)
    if len(set(added_ids)) != len(added_ids) or min(added_ids) < 0 or beyond != list(range(rows, rows + len(beyond))):
        raise InputError(
            f"model.language: the added tokens have ids {min(added_ids)} to {max(added_ids)}, each once and none left "
            f"out behind the {rows} rows of the model's table; is this the tokenizer of another model?"
        )
