"""How many questions about pictures are answered rightly, by kind, and how many would be without looking.

Each question is asked alone under three conditions: with its own pictures (`right`), with those of other conversations
in their places (`shuffled`), and with middle grey (`none`). Beside them stands what needs no model and no picture: for
each text of a question the answer that is commonest to it (the language prior of Goyal et al. 2017, arXiv 1612.00837).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from carnac.evaluate.bootstrap import paired_difference
from carnac.evaluate.confusion import confusions
from carnac.evaluate.grounding import CONDITIONS, Condition
from carnac.evaluate.kinds import kinds_of
from carnac.evaluate.settings import QuestionSettings

ALL = "all"
WITHOUT_LOOKING = "without_looking"
RULE = (
    "An answer is right if it equals the reference, spaces at the ends and the case of letters aside. Accuracies are "
    "shares of questions; intervals hold 95 %, by a bootstrap over pictures: questions about one picture stay together."
)
PRIORS = {
    True: "without_looking: for each text of a question the answer that is commonest to it in the training shards; for "
    "a text that is not there, the commonest answer of all.",
    False: "without_looking: for each text of a question the answer that is commonest to it among these very "
    "questions: in hindsight, so no less than a model can reach without looking.",
}
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question that was asked. `picture` names what it is about: questions that share it are drawn together.

    `answers` are the model's, by condition; without a picture there is only one condition.
    """

    picture: str
    question: str
    reference: str
    answers: Mapping[Condition, str]


def plain(text: str) -> str:
    """Return text as answers are compared: without spaces at its ends, in lower case."""
    return text.strip().lower()


def commonest_answers(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], str]:
    """Return the commonest answer to each text of a question, and that of all, of (question, answer) pairs.

    Of equally common ones the first in the alphabet is taken. Without pairs it is the empty answer.
    """
    by_question: dict[str, Counter[str]] = {}
    total: Counter[str] = Counter()
    for question, answer in pairs:
        by_question.setdefault(plain(question), Counter())[plain(answer)] += 1
        total[plain(answer)] += 1
    return {question: _commonest(counts) for question, counts in by_question.items()}, _commonest(total)


def summarise_questions(
    asked: Sequence[Asked], settings: QuestionSettings, trained: Iterable[tuple[str, str]] | None = None
) -> dict[str, Any]:
    """Return the content of `questions.json`.

    `trained` are the (question, answer) pairs of the training shards, for the answers without looking. `table` has a
    row for all questions and one for each kind: per condition {estimate, low, high}, and under `gains` what the right
    pictures add to each other condition. Without two pictures `low` and `high` are null. `confusion`: `confusions`.
    """
    pairs = [(plain(one.question), plain(one.reference)) for one in asked]
    given = {name: tuple(map(plain, answers)) for name, answers in settings.kinds.items()}
    kinds = kinds_of(pairs, given)
    pictures = np.unique([one.picture for one in asked], return_inverse=True)[1]
    right = _rightness(asked, pairs, pairs if trained is None else trained)
    table = []
    for kind in [ALL, *_by_size(kinds)]:
        of = np.array([kind in (ALL, one) for one in kinds])
        row = _row({name: values[of] for name, values in right.items()}, pictures[of], settings)
        table.append({"kind": kind, **row})
    triples = [
        (kind, reference, plain(one.answers["right"]))
        for kind, (_, reference), one in zip(kinds, pairs, asked, strict=True)
    ]
    return {
        "rule": RULE,
        "prior": PRIORS[trained is not None],
        "questions": len(asked),
        "pictures": table[0]["pictures"],
        "table": table,
        "confusion": confusions(triples),
        "verdict": verdict(table[0]),
    }


def _rightness(
    asked: Sequence[Asked], pairs: Sequence[tuple[str, str]], trained: Iterable[tuple[str, str]]
) -> dict[str, Array]:
    """Return for each way to answer 1 where a question is answered rightly, 0 where not, NaN where it was not asked."""
    found: dict[str, Array] = {
        name: np.array([_is_right(one, name) for one in asked], dtype=np.float64) for name in CONDITIONS
    }
    common, commonest = commonest_answers(trained)
    found[WITHOUT_LOOKING] = np.array(
        [common.get(question, commonest) == reference for question, reference in pairs], dtype=np.float64
    )
    return found


def _by_size(kinds: Sequence[str]) -> list[str]:
    """Return the kinds, largest first; nothing where there is only one."""
    sizes = Counter(kinds)
    return sorted(sizes, key=lambda kind: (-sizes[kind], kind)) if len(sizes) > 1 else []


def verdict(row: Mapping[str, Any]) -> str:
    """Say in one sentence what the first row of the table says."""
    shares = {name: f"{row[name]['estimate']:.3f}" for name in (*CONDITIONS, WITHOUT_LOOKING) if row[name]}
    if "right" not in shares:
        return "Not measured: no question was asked."
    span = row["right"]
    within = "" if span["low"] is None else f" (95 % interval [{span['low']:.3f}, {span['high']:.3f}])"
    said = f"{shares['right']} of {row['questions']:,} questions answered rightly{within}"
    words = {"shuffled": "with other pictures", "none": "with grey ones", WITHOUT_LOOKING: "best without looking"}
    others = ", ".join(f"{words[name]} {shares[name]}" for name in words if name in shares)
    return f"{said}; {others}." if others else f"{said}."


def _row(right: Mapping[str, Array], pictures: npt.NDArray[np.int64], settings: QuestionSettings) -> dict[str, Any]:
    """Return a row of the table: of each condition the questions that were asked under it."""
    found: dict[str, Any] = {"questions": len(pictures), "pictures": len(set(pictures.tolist()))}
    gains: dict[str, Any] = {}
    zero = np.zeros(len(pictures))
    for name, values in right.items():
        of = ~np.isnan(values)
        found[name] = _interval(zero[of], values[of], pictures[of], settings)
        both = of & ~np.isnan(right["right"])
        if name != "right":
            gains[name] = _interval(values[both], right["right"][both], pictures[both], settings)
    return {**found, "gains": gains}


def _interval(first: Array, second: Array, pictures: npt.NDArray[np.int64], settings: QuestionSettings) -> Any:
    """Return {estimate, low, high} of the mean of `second` - `first` over questions; None without a question."""
    if not len(pictures):
        return None
    _, of = np.unique(pictures, return_inverse=True)
    sizes = np.bincount(of).astype(np.float64)
    if len(sizes) < 2:
        return {"estimate": float((second - first).mean()), "low": None, "high": None}
    one, two = (np.bincount(of, weights=values).astype(np.float64) for values in (first, second))
    return asdict(paired_difference(one, two, sizes, seed=settings.seed, resamples=settings.resamples))


def _is_right(one: Asked, condition: Condition) -> float:
    answer = one.answers.get(condition)
    return float("nan") if answer is None else float(plain(answer) == plain(one.reference))


def _commonest(counts: Counter[str]) -> str:
    return min(counts, key=lambda answer: (-counts[answer], answer)) if counts else ""
