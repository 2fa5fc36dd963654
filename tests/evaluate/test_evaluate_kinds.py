from __future__ import annotations

from carnac.evaluate.kinds import MAX_KINDS, REST, YES_NO, kinds_of


def test_answers_to_one_question_are_of_one_kind() -> None:
    pairs = [
        ("is it red?", "yes"),
        ("is it red?", "no"),
        ("what color?", "red"),
        ("what color?", "blue"),
        ("which color?", "blue"),
        ("which color?", "green"),
        ("what shape?", "circle"),
        ("and now?", "circle"),
        ("and now?", "square"),
    ]
    colours, shapes = "blue, green, red", "circle, square"
    found = kinds_of(pairs, {})
    assert found[:2] == [YES_NO, YES_NO]
    assert set(found[2:6]) == {found[2]}
    assert sorted(found[2].split(", ")) == sorted(colours.split(", "))
    assert found[6:] == [shapes] * 3


def test_a_large_kind_is_called_by_its_commonest_answers() -> None:
    pairs = [("what?", answer) for answer in ["a", "b", "b", "c", "c", "c", "d", "d", "d", "d"]]
    assert kinds_of(pairs, {})[0] == "d, c, b ... (4 answers)"


def test_yes_and_no_join_nothing_and_given_kinds_come_first() -> None:
    pairs = [("q", "yes"), ("q", "maybe"), ("r", "no"), ("r", "never"), ("s", "red"), ("s", "blue")]
    assert kinds_of(pairs, {"warm": ["red"]}) == [YES_NO, "maybe", YES_NO, "never", "warm", "blue"]
    assert kinds_of(pairs, {"sure": ["yes", "never"]})[0] == "sure"


def test_beyond_a_table_the_smallest_kinds_are_counted_together() -> None:
    pairs = [(f"q{number}", f"a{number}") for number in range(100) for _ in range(100 - number)]
    found = set(kinds_of(pairs, {}))
    assert len(found) <= MAX_KINDS
    assert {"a0", "a5", REST} <= found
    assert "a50" not in found


def test_no_questions_have_no_kinds() -> None:
    assert kinds_of([], {}) == []
