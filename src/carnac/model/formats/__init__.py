"""Formats of other libraries that a model can be written in and read from, each with a proof of equal numbers.

`idefics`, `idefics2`, `idefics3` and `llava` are pure mappings of configurations and tensor names; `folders` writes and
reads them; `reference` and `proof` compute the same prompts with carnac and, in a fresh process, with transformers
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Literal, get_args

from carnac.model.formats import idefics, idefics2, idefics3, llava
from carnac.model.formats.description import Description, Reason

FormatName = Literal["idefics", "idefics2", "idefics3", "llava"]
FORMATS: dict[FormatName, ModuleType] = {"idefics": idefics, "idefics2": idefics2, "idefics3": idefics3, "llava": llava}
NAMES: tuple[FormatName, ...] = get_args(FormatName)
# How the classes of all formats but one join a picture and a text, and what of that one's cannot be said of the others.
CROSS_ATTENTION: FormatName = "idefics"
NATIVE_ASPECT: FormatName = "idefics2"
FAMILIES = {
    "cross_attention": "it has gated cross-attention between the layers of the language model",
    "autoregressive": "its pictures take places in the token sequence",
}


def refusals(name: FormatName, described: Description) -> list[Reason]:
    """Return (place in a train recipe, sentence) for every reason why format `name` cannot express a model.

    Each sentence says which formats can. Cheap: a recipe is enough, no weights are looked at.
    """
    reasons = list(_reasons(name, described))
    able = [other for other in NAMES if other != name and not any(_reasons(other, described))]
    rest = f"{' and '.join(able)} can" if able else "no other format can either: carnac's own folder keeps all of it"
    return [(place, f"the {name} format cannot express this model: {reason}; {rest}.") for place, reason in reasons]


def _reasons(name: FormatName, described: Description) -> Iterator[Reason]:
    family = "cross_attention" if name == CROSS_ATTENTION else "autoregressive"
    named: set[tuple[str, ...]] = {("model", "family")}
    if described.settings.family != family:
        yield ("model", "family"), f"{FAMILIES[family]}, and this model's family is {described.settings.family}"
    if described.pictures.aspect == "native" and name != NATIVE_ASPECT:
        yield ("pictures", "aspect"), "it shows squares, and this model's pictures keep their own shape"
        named.add(("model", "vision"))  # the tower is another one for that reason
    for place, reason in FORMATS[name].reasons(described):
        if place not in named:
            yield place, reason
