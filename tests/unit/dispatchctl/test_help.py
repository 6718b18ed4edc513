"""Help texts: each shows how the command is used, and each example in them is one that the command takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dispatchctl.__main__ import main
from dispatchctl.cli import GROUPS, cli
from dispatchctl.session import Session

ROOT = Path(__file__).parents[3]


def commands(group: click.Group = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command's path, the root's first."""
    yield path
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name)


def help_of(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*path, "--help"]) == 0
    return capsys.readouterr().out


def examples(text: str) -> list[str]:
    section = re.search(r"\n\s+Example:\n((?:\s+dispatchctl .*\n)+)", text)
    assert section, text
    return [line.strip() for line in section[1].splitlines()]


def parse(group: click.Command, words: list[str], parent: click.Context | None, name: str) -> None:
    """Feeds words to a command's parser and to those below it; click raises where they do not fit."""
    context = group.make_context(name, words, parent=parent, obj=Session() if parent is None else None)
    if isinstance(group, click.Group):
        below, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        parse(command, rest, context, below or "")


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_shows_the_usage_and_an_example_that_fits(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    text = help_of(path, capsys)
    assert text.startswith(f"Usage: {' '.join(('dispatchctl', *path))}")
    shown = examples(text)
    for example in shown:
        words = shlex.split(example)
        assert words[: len(path) + 1] == ["dispatchctl", *path]
        parse(cli, words[1:], None, "dispatchctl")
    assert text.index(shown[0]) < text.index("Options:")


def test_an_example_that_does_not_fit_would_be_found() -> None:
    for wrong in (["tasks", "--colour", "red"], ["billing", "stop"], ["trip"]):
        with pytest.raises(click.UsageError):
            parse(cli, wrong, None, "dispatchctl")


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_fits_80_columns_and_every_option_explains_itself(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert all(len(line) <= 80 for line in help_of(path, capsys).splitlines())
    command: click.Command = cli
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_each_command_is_listed_under_what_it_is_about(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of((), capsys)
    for title, members in GROUPS.items():
        assert f"{title}:" in text
        for command in members:
            assert re.search(rf"^  {command.name}  +\S", text, re.MULTILINE), command.name
