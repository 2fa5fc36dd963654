from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from carnac.cli import cli

# What users type: a name here goes only with a line in the CHANGELOG.
COMMANDS = {
    "check": {"recipes", "--set"},
    "run": {"recipes", "--set", "--limit", "--workers", "--dry-run", "--record", "--retry"},
    "show": {"folder", "--brief", "--html", "--id", "--set"},
    "export": {"model", "--format", "--out"},
    "import": {"folder", "--out"},
    "merge": {"model", "--out", "--vision", "--language"},
    "adapters": {"model", "--out"},
    "convert": {"source", "--out", "--precision"},
    "takedown": {"folders", "--url", "--domain", "--sha256", "--list", "--dry-run"},
    "chat": {"model", "prompt", "--image", "--max-tokens", "--temperature", "--seed"},
}


def _carnac(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "carnac", *arguments]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


def test_commands_and_options_are_what_they_were() -> None:
    found = {}
    for name, command in cli.commands.items():
        arguments = {str(parameter.name) for parameter in command.params if isinstance(parameter, click.Argument)}
        found[name] = arguments.union(*(each.opts for each in command.params if isinstance(each, click.Option)))
    assert found == COMMANDS


def test_every_command_and_option_says_what_it_does() -> None:
    for command in cli.commands.values():
        assert command.help
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.help


FIVE_MISTAKES = """\
job = "crawl"
output = 3
warcs = []
limit = 0

[extract]
max_page_byte = 1
unknown = true
"""


@pytest.mark.parametrize("verb", [["check"], ["run"], ["run", "--dry-run"]])
def test_a_recipe_with_five_mistakes_ends_with_two_and_writes_nothing(tmp_path: Path, verb: list[str]) -> None:
    (tmp_path / "bad.toml").write_text(FIVE_MISTAKES)
    done = _carnac(*verb, "bad.toml", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        *(f"bad.toml:{n}" for n in (2, 3, 4, 7, 8)),
        lines[-1].split(": ")[0],
    ]
    assert lines[-1] == "5 mistakes; nothing was run."
    assert list(tmp_path.iterdir()) == [tmp_path / "bad.toml"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["run", "gone.toml"], 2, "gone.toml: no such file. Wanted a recipe"),
        (["run", "."], 2, ".: no *.toml recipe in this folder."),
        (["run", "x.toml", "--set", "nonsense"], 2, "--set: got 'nonsense', wanted key=value"),
        (["run"], 2, "Missing argument 'RECIPES...'"),
        (["run", "x.toml", "--limit", "0"], 2, "0 is not in the range x>=1"),
        (["rn"], 2, "No such command 'rn'"),
    ],
)
def test_a_wrong_command_ends_in_a_sentence(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    done = _carnac(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_input_that_is_not_there_ends_with_one(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('job = "crawl"\nwarcs = ["gone-*.warc.gz"]\noutput = "out"\n')
    done = _carnac("run", "a.toml", folder=tmp_path)
    assert done.returncode == 1
    assert "carnac: gone-*.warc.gz: no such file. Wanted input files" in done.stderr
    assert not (tmp_path / "out").exists()
