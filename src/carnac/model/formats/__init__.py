"""Formats of other libraries that a model can be written in and read from, each with a proof of equal numbers.

`idefics3` and `llava` are pure mappings of configurations and tensor names; `folders` writes and reads them;
`reference` and `proof` compute the same prompts with carnac and, in a fresh process, with transformers alone.
"""

from __future__ import annotations

from types import ModuleType
from typing import Literal, get_args

from carnac.model.formats import idefics3, llava
from carnac.model.formats.description import Description, Reason

FormatName = Literal["idefics3", "llava"]
FORMATS: dict[FormatName, ModuleType] = {"idefics3": idefics3, "llava": llava}
NAMES: tuple[FormatName, ...] = get_args(FormatName)


def refusals(name: FormatName, described: Description) -> list[Reason]:
    """Return (place in a train recipe, sentence) for every reason why format `name` cannot express a model.

    Each sentence says which formats can. Cheap: a recipe is enough, no weights are looked at.
    """
    reasons = list(FORMATS[name].reasons(described))
    able = [other for other in NAMES if other != name and not any(FORMATS[other].reasons(described))]
    rest = f"{' and '.join(able)} can" if able else "no other format can either: carnac's own folder keeps all of it"
    return [(place, f"the {name} format cannot express this model: {reason}; {rest}.") for place, reason in reasons]
