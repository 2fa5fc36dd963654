"""Kinds of questions, told by their answers: yes or no, groups that are given, and groups found in the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

YES_NO = "yes/no"
REST = "other"
MAX_KINDS = 12  # in a table; the smallest of those found are counted together beyond it
NAMED = 3  # answers that a found kind is called by


def kinds_of(pairs: Sequence[tuple[str, str]], given: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the kind of each (question, reference answer), both as `questions.plain` makes them.

    `given` maps names to answers. Of the other answers, two are of one kind when some question is answered with both:
    "what colour is it?" makes red and blue one kind. It is called by its commonest answers.
    """
    named = {answer: kind for kind, answers in given.items() for answer in answers}
    named = {"yes": YES_NO, "no": YES_NO} | named
    counts = Counter(answer for _, answer in pairs if answer not in named)
    roots = _roots((question, answer) for question, answer in pairs if answer in counts)
    groups: dict[str, list[str]] = {}
    for answer in sorted(counts, key=lambda each: (-counts[each], each)):
        groups.setdefault(roots[answer], []).append(answer)
    sizes = {root: sum(counts[answer] for answer in answers) for root, answers in groups.items()}
    largest = sorted(groups, key=lambda root: (-sizes[root], root))
    room = max(1, MAX_KINDS - len(set(named.values())) - 1)
    for number, root in enumerate(largest):
        name = _name(groups[root]) if number < room else REST
        named |= dict.fromkeys(groups[root], name)
    return [named[answer] for _, answer in pairs]


def _name(answers: Sequence[str]) -> str:
    """Return what a found kind is called; `answers` begin with the commonest."""
    shown = ", ".join(answer[:20] for answer in answers[:NAMED])
    return shown if len(answers) <= NAMED else f"{shown} ... ({len(answers)} answers)"


def _roots(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return one answer for each group of answers that questions join (union-find)."""
    parents: dict[str, str] = {}

    def root_of(answer: str) -> str:
        parents.setdefault(answer, answer)
        while parents[answer] != answer:
            parents[answer] = parents[parents[answer]]
            answer = parents[answer]
        return answer

    first: dict[str, str] = {}
    for question, answer in pairs:
        one, two = root_of(first.setdefault(question, answer)), root_of(answer)
        parents[max(one, two)] = min(one, two)
    return {answer: root_of(answer) for answer in list(parents)}
