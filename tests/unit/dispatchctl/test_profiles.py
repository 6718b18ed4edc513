"""Profiles: which option wins, and that each mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatchctl.__main__ import main
from dispatchctl.cli import cli
from dispatchctl.failures import ExitStatus, Failure
from dispatchctl.session import DEFAULT_ADDRESS, Output, Session

FILE = """
[profiles.default]
timeout = "3s"

[profiles.staging]
address = "10.0.0.5:50051"
executor = "0.0.0.0:50052"
timeout = "30s"
output = "wide"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    written = tmp_path / "config.toml"
    written.write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("DISPATCH_CONFIG_FILE", str(written))
    for name in ("DISPATCH_PROFILE", "DISPATCH_ADDRESS", "EXECUTOR_GRPC_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return written


def session(*words: str) -> Session:
    """The options that a command would see."""
    root = cli.make_context("dispatchctl", [*words, "runs"], obj=Session())
    command = cli.commands["runs"].make_context("runs", [], parent=root)
    found = command.obj
    assert isinstance(found, Session)
    return found


def test_the_default_profile_is_taken_where_there_is_one(file: Path) -> None:
    assert (session().address, session().timeout_s) == (DEFAULT_ADDRESS, 3.0)


def test_a_named_profile_gives_every_option(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCH_PROFILE", "staging")
    found = session()
    assert (found.address, found.timeout_s, found.output) == ("10.0.0.5:50051", 30.0, Output.WIDE)
    assert found.executor == "127.0.0.1:50052", "an address to serve at is reached over loopback"


def test_flags_beat_the_environment_and_that_beats_the_profile(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCH_PROFILE", "staging")
    monkeypatch.setenv("DISPATCH_ADDRESS", "10.0.0.6:1")
    monkeypatch.setenv("EXECUTOR_GRPC_ADDRESS", "10.0.0.6:2")
    assert (session().address, session().executor) == ("10.0.0.6:1", "10.0.0.6:2")
    assert session("--address", "10.0.0.7:1", "--timeout", "5s", "-o", "json").address == "10.0.0.7:1"
    assert session("--timeout", "5s").timeout_s == 5.0
    assert session("-o", "json").output is Output.JSON


def test_without_a_file_everything_is_as_by_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("DISPATCH_CONFIG_FILE", "DISPATCH_PROFILE", "DISPATCH_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert session().address == DEFAULT_ADDRESS


def test_the_file_has_a_place_where_it_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("DISPATCH_CONFIG_FILE", raising=False)
    monkeypatch.setenv("DISPATCH_PROFILE", "staging")
    (tmp_path / "cecelia-dispatch").mkdir()
    (tmp_path / "cecelia-dispatch" / "config.toml").write_text(FILE, encoding="utf-8")
    assert session().timeout_s == 30.0


@pytest.mark.parametrize(
    ("text", "profile", "words"),
    [
        (FILE, "production", "has default, staging"),
        (FILE.replace("address", "adress"), "staging", "profiles.staging has the unknown key 'adress'"),
        (FILE.replace("30s", "soon"), "staging", "profiles.staging.timeout: 'soon' is no duration"),
        (FILE.replace('"30s"', "0"), "staging", "profiles.staging.timeout: 0 is too short"),
        (FILE.replace("10.0.0.5:50051", "nowhere"), "staging", "profiles.staging.address: 'nowhere' is no host:port"),
        (FILE.replace("wide", "broad"), "staging", "profiles.staging.output: 'broad'"),
        (FILE + "[profile.x]", "staging", "unknown key 'profile'"),
        ("profiles = 3", "staging", "holds no tables"),
        ("[profiles", "staging", "is no TOML"),
        (None, "staging", "does not exist"),
        (None, "", "does not exist"),
    ],
)
def test_a_mistake_is_a_usage_error_that_names_it(
    file: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, profile: str, words: str
) -> None:
    if text is None:
        file.unlink()
    else:
        file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("DISPATCH_PROFILE", profile)
    with pytest.raises(Failure) as caught:
        print(session().address)
    assert caught.value.status is ExitStatus.USAGE
    assert words in caught.value.why
    assert caught.value.why.startswith("bad_profile: ")


def test_help_needs_no_profile(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[profiles", encoding="utf-8")
    assert main(["tasks", "-h"]) == 0
    assert main(["tasks"]) == 2
    assert "bad_profile" in capsys.readouterr().err
