from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recipe_models import HEAD, ToyRecipe, complaints, load, settings_of

from carnac.core.errors import RecipeError
from carnac.recipe.load import parse_overrides
from carnac.recipe.mistakes import did_you_mean, shown


def test_a_good_recipe(tmp_path: Path) -> None:
    text = HEAD + 'documents = "d"\n[training]\nsteps = 3\n[[pass]]\nkind = "repeats"\n[config]\nx = 1.5\ny = true\n'
    recipe = settings_of(tmp_path, text)
    with pytest.raises(ValueError, match="frozen"):
        recipe.limit = 3
    assert isinstance(recipe, ToyRecipe)
    assert (recipe.output, recipe.documents) == (Path("out/toys"), Path("d"))
    assert recipe.training.steps == 3
    assert recipe.passes[0].kind == "repeats"
    assert recipe.config == {"x": 1.5, "y": True}


FIVE = """\
job = "toy"
output = "out/toys"
warcs = []

[training]
steps = "many"
learning_rat = 0.1

[[pass]]
kind = "rule"

[[pass]]
kind = "rules"
name = "blocks"
rules = [
  { signal = "num_words", min = 1 },
  { signal = "num_wrods" },
]
"""


def test_five_mistakes_give_five_messages_each_with_file_and_line(tmp_path: Path) -> None:
    assert complaints(tmp_path, FIVE) == [
        "toy.toml:3: warcs: got [], wanted something with at least 1 item.",
        "toy.toml:6: training.steps: got 'many', wanted an integer.",
        "toy.toml:7: training.learning_rat: unknown key. Did you mean 'learning_rate'?",
        "toy.toml:10: pass.0.kind: got 'rule', wanted one of: rules, repeats.",
        "toy.toml:17: pass.1.rules.1.signal: got 'num_wrods', wanted one of: num_words, num_images.",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        # unknown keys
        (HEAD + "outputs = 1\n", "toy.toml:3: outputs: unknown key. Did you mean 'output'?"),
        (
            HEAD + "[training]\nsteps = 1\nzzz = 1\n",
            "toy.toml:5: training.zzz: unknown key. Known: learning_rate, resume, schedule, steps.",
        ),
        (HEAD + "[a.b]\nc = 1\n", "toy.toml:3: a: unknown key. Known: "),
        (HEAD + 'passes = "x"\n', "toy.toml:3: passes: unknown key. Did you mean 'pass'?"),
        # missing keys
        ('job = "toy"\n', "toy.toml:1: output: missing. Wanted: folder for the toys."),
        (HEAD + "[training]\n", "toy.toml:3: training.steps: missing. Wanted: number of steps."),
        (HEAD + "training.resume = false\n", "toy.toml:3: training.steps: missing. Wanted: number of steps."),
        (
            HEAD + "[training]\nsteps = 1\n[training.schedule]\n",
            "toy.toml:5: training.schedule.signal: missing. Wanted: what is measured.",
        ),
        (
            HEAD + '[[pass]]\nkind = "rules"\n',
            "toy.toml:3: pass.0.name: missing. Wanted: name of the pass.",
        ),
        (HEAD + "[[pass]]\n", "toy.toml:3: pass.0.kind: missing, wanted one of: rules, repeats."),
        # wrong types: strict, so that nobody's "true" becomes true
        (HEAD + "limit = 1.5\n", "toy.toml:3: limit: got 1.5, wanted an integer."),
        (HEAD + 'limit = "1"\n', "toy.toml:3: limit: got '1', wanted an integer."),
        (HEAD + "limit = true\n", "toy.toml:3: limit: got true, wanted an integer."),
        (HEAD + "limit = 2024-01-01\n", "toy.toml:3: limit: got '2024-01-01', wanted an integer."),
        (HEAD + "[training]\nsteps = 1\nresume = 1\n", "toy.toml:5: training.resume: got 1, wanted true or false."),
        (HEAD + "training = 3\n", "toy.toml:3: training: got 3, wanted a table."),
        (HEAD + "warcs = 3\n", "toy.toml:3: warcs: got 3, wanted a list."),
        (HEAD + 'warcs = [\n"a",\n3]\n', "toy.toml:5: warcs.1: got 3, wanted a string."),
        (HEAD + "config = 3\n", "toy.toml:3: config: got 3, wanted a table."),
        ('job = "toy"\noutput = 3\n', "toy.toml:2: output: got 3, wanted "),
        (
            HEAD + "[config]\nx = [1]\n",
            "toy.toml:4: config.x: got [1], wanted an integer or a number or true or false or a string.",
        ),
        # values out of range
        (HEAD + "limit = 0\n", "toy.toml:3: limit: got 0, wanted greater than or equal to 1."),
        (
            HEAD + "[training]\nsteps = 1\nlearning_rate = nan\n",
            "toy.toml:5: training.learning_rate: got nan, wanted a finite number.",
        ),
        (
            HEAD + '[[pass]]\nkind = "rules"\nname = "UP"\n',
            "toy.toml:5: pass.0.name: got 'UP', wanted something that matches pattern '^[a-z]+$'.",
        ),
        (
            HEAD + '[[pass]]\nkind = "rules"\nname = "abcdefghij"\n',
            "toy.toml:5: pass.0.name: got 'abcdefghij', wanted something with at most 9 characters.",
        ),
        # what a table as a whole refuses
        (
            HEAD + '[training]\nsteps = 1\nschedule = { signal = "num_words", min = 3, max = 1 }\n',
            "toy.toml:5: training.schedule: min 3 is larger than max 1.",
        ),
        # the job
        ("limit = 1\n", "toy.toml:1: job: missing; every recipe names its job, one of: toy, source, reader, mixed."),
        ('\njob = "toi"\n', "toy.toml:2: job: got 'toi', wanted the name of a job. Did you mean 'toy'?"),
        ("job = 3\n", "toy.toml:1: job: got 3, wanted the name of a job."),
        ("job = [\n]\n", "toy.toml:1: job: got [], wanted the name of a job."),
        ("job = \n", "toy.toml:1: not valid TOML: Invalid value."),
    ],
)
def test_a_mistake_says_where_what_and_what_is_wanted(tmp_path: Path, text: str, complaint: str) -> None:
    found = complaints(tmp_path, text)
    assert len(found) == 1
    assert found[0].startswith(complaint)


def test_mistakes_of_several_recipes_come_together_in_order(tmp_path: Path) -> None:
    texts = {"1.toml": HEAD + "limit = 0\n", "2.toml": HEAD, "3.toml": "job = \n", "4.toml": HEAD + "x = 1\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    loaded, mistakes = load([tmp_path / name for name in texts])
    assert [recipe.source.path.name for recipe in loaded] == ["2.toml"]
    assert [mistake.removeprefix(f"{tmp_path}/")[:9] for mistake in mistakes] == ["1.toml:3:", "3.toml:1:", "4.toml:3:"]


def test_recipe_paths_lie_beside_the_recipe(tmp_path: Path) -> None:
    text = (
        HEAD
        + 'documents = "recipe://data/d"\nwarcs = ["recipe://a.warc", "b.warc"]\nconfig = { x = "recipe://../y" }\n'
    )
    recipe = settings_of(tmp_path, text, "pass=[{kind='repeats', by='recipe://z'}]")
    assert recipe.documents == tmp_path / "data/d"
    assert recipe.warcs == (str(tmp_path / "a.warc"), "b.warc")
    assert recipe.config == {"x": str(tmp_path / "../y")}
    assert recipe.passes[0].by == str(tmp_path / "z")


def test_a_recipe_is_data_and_never_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    texts = ["__import__('os').abort()", "$(touch x)", "${SECRET}", "{steps}", "%(here)s", "~/x", "!!python/object:x"]
    recipe = settings_of(tmp_path, HEAD + f"warcs = {texts}\n")
    assert list(recipe.warcs) == texts
    assert list(tmp_path.iterdir()) == [tmp_path / "toy.toml"]


@pytest.mark.parametrize(
    ("pair", "location", "value"),
    [
        ("training.steps=20", ("training", "steps"), 20),
        (" training.steps =20", ("training", "steps"), 20),
        ("pass.0.name=x", ("pass", 0, "name"), "x"),
        ("a=1.5", ("a",), 1.5),
        ("a=true", ("a",), True),
        ("a=[1, 'x']", ("a",), [1, "x"]),
        ("a={b = 1}", ("a",), {"b": 1}),
        ('a="20"', ("a",), "20"),
        ("a=out/tiny", ("a",), "out/tiny"),
        ("a=b=c", ("a",), "b=c"),
        ("a=", ("a",), ""),
        ("a=x # y", ("a",), "x # y"),
        ("a=" + "[" * 5000, ("a",), "[" * 5000),
        ("a.\u00b2=1", ("a", "\u00b2"), 1),
    ],
)
def test_overrides_are_toml_or_bare_words(pair: str, location: tuple[str | int, ...], value: object) -> None:
    assert parse_overrides([pair]) == {location: value}


def test_overrides_without_a_key_or_a_value_are_all_reported() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_overrides(["nonsense", "=3", "a=1"])
    assert [str(mistake) for mistake in caught.value.mistakes] == [
        "--set: got 'nonsense', wanted key=value, such as training.steps=20.",
        "--set: got '=3', wanted key=value, such as training.steps=20.",
    ]


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_override_is_read_or_refused(text: str) -> None:
    try:
        overrides = parse_overrides([text])
    except RecipeError:
        assert not text.partition("=")[0].strip() or "=" not in text
    else:
        assert len(overrides) == 1


def test_overrides_replace_add_and_reach_into_lists_and_free_tables(tmp_path: Path) -> None:
    text = (
        HEAD + '[[pass]]\nkind = "repeats"\n[[pass]]\nkind = "rules"\nname = "a"\nrules = [{ signal = "num_words" }]\n'
    )
    overrides = ["limit=5", "training.steps=7", "pass.0.by=text", "pass.1.rules.0.min=2", "config.heads=4"]
    recipe = settings_of(tmp_path, text, *overrides)
    assert (recipe.limit, recipe.training.steps, recipe.config) == (5, 7, {"heads": 4})
    assert recipe.passes[0].by == "text"
    assert recipe.passes[1].rules[0].min == 2


def test_an_override_reaches_every_recipe_that_knows_it(tmp_path: Path) -> None:
    (tmp_path / "1.toml").write_text('job = "source"\noutput = "d"\n')
    (tmp_path / "2.toml").write_text(HEAD)
    loaded, mistakes = load([tmp_path / "1.toml", tmp_path / "2.toml"], "limit=3", "training.steps=9")
    assert mistakes == []
    assert [recipe.settings.limit for recipe in loaded] == [3, 3]
    assert loaded[1].settings.model_dump()["training"]["steps"] == 9


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.steps=x", "--set: training.steps: got 'x', wanted an integer."),
        ("training.steps=0", "--set: training.steps: got 0, wanted greater than or equal to 1."),
        ("limit=2024-01-01", "--set: limit: got '2024-01-01', wanted an integer."),
        ("limit=nan", "--set: limit: got nan, wanted an integer."),
        ("training={stepz=1, steps=1}", "--set: training.stepz: unknown key. Did you mean 'steps'?"),
        ("training.resume=false", "toy.toml:1: training.steps: missing. Wanted: number of steps."),
        (
            "training={steps=1, schedule={signal='num_words', min=2, max=1}}",
            "--set: training.schedule: min 2 is larger than max 1.",
        ),
        ("job=reader", "--set: job: got 'reader', wanted one of: toy."),
        # keys that nobody knows
        ("traning.steps=4", "--set: traning.steps: no recipe of this run has this key. Did you mean 'training'?"),
        ("training.stepz=4", "--set: training.stepz: no recipe of this run has this key. Did you mean 'steps'?"),
        ("toys=x", "--set: toys: no recipe of this run has this key. Known: config, "),
        ("warcs.0=x", "--set: warcs.0: no recipe of this run has this key."),
        ("training.steps.x=1", "--set: training.steps.x: no recipe of this run has this key."),
        # entries that the recipe lacks
        ("pass.3.name=x", "--set: pass.3.name: toy.toml has no such entry to override."),
    ],
)
def test_a_mistake_of_an_override_is_blamed_on_it(tmp_path: Path, override: str, complaint: str) -> None:
    found = complaints(tmp_path, HEAD, override)
    assert len(found) == 1
    assert found[0].startswith(complaint)


def test_a_pair_of_overrides_that_do_not_fit_is_blamed_on_them(tmp_path: Path) -> None:
    pairs = ["training.steps=1", "training.schedule.signal=num_words", "training.schedule.min=2"]
    assert complaints(tmp_path, HEAD, *pairs, "training.schedule.max=1") == [
        "--set: training.schedule.max: min 2 is larger than max 1."
    ]


def test_an_override_into_a_value_of_the_wrong_type_adds_no_crash(tmp_path: Path) -> None:
    assert complaints(tmp_path, HEAD + "pass = 5\n", "pass.0.name=x") == [
        "--set: pass.0.name: toy.toml has no such entry to override.",
        "toy.toml:3: pass: got 5, wanted a list.",
    ]
    found = complaints(tmp_path, HEAD + "training = 5\n", "training.steps=1")
    assert "toy.toml:3: training: got 5, wanted a table." in found


def test_a_recipe_that_cannot_be_read_makes_no_override_unknown(tmp_path: Path) -> None:
    found = complaints(tmp_path, "job = \n", "training.steps=3")
    assert [line[:20] for line in found] == ["toy.toml:1: not vali"]


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*ToyRecipe.model_fields, "pass", "x"]),
        st.recursive(
            st.integers(-2, 2) | st.booleans() | st.sampled_from(["toy", "rules", "repeats", "a"]),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["kind", "name", "rules", "steps", "min", "signal"]), inner, max_size=3
                )
            ),
            max_leaves=5,
        ),
    ),
    st.lists(
        st.sampled_from(
            ["pass.0.name=x", "limit=2", "training.steps=2", "config.a=1", "pass=[{}]", "pass.0.rules.1.min=3"]
        )
    ),
)
def test_any_data_gives_settings_or_sentences(tmp_path: Path, data: dict[str, object], overrides: list[str]) -> None:
    import tomli_w

    path = tmp_path / "toy.toml"
    path.write_text(tomli_w.dumps({**data, "job": "toy"}))
    loaded, mistakes = load([path], *overrides)
    assert loaded or mistakes
    for mistake in mistakes:
        assert mistake.startswith(("--set: ", f"{path}:"))
        assert "\n" not in mistake
        assert "Input should" not in mistake
        assert "discriminator" not in mistake


def test_did_you_mean_offers_the_nearest_or_all() -> None:
    assert did_you_mean("outptu", ["output", "input"]) == " Did you mean 'output'?"
    assert did_you_mean("zzz", ["b", "a"]) == " Known: a, b."
    assert did_you_mean("zzz", []) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (False, "false"), ("x", "'x'"), (1, "1"), ([1], "[1]"), ("y" * 99, "'" + "y" * 56 + "...")],
)
def test_values_are_shown_short(value: object, text: str) -> None:
    assert shown(value) == text
