"""Which backends are made, and that what is wrong with one is told of it and stops no other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from executor_service.backends.loading import FLAGS, METHODS, BackendLoader
from executor_service.backends.plugged import Plugged
from executor_service.core.run import BackendKind
from executor_service.runs.ports import Backend
from executor_service.settings import ExecutorSettings
from service_runtime.settings import SettingsError, load_settings
from tests.fakes.plug_ins import GOOD, code_of_the_page, install

BUILT_IN = {"cecelia-run", "hk-minimax"}


def loader(**settings: str) -> BackendLoader:
    return BackendLoader(load_settings(ExecutorSettings, settings), {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python looks into, in front of all others."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


def plug_in(folder: Path, code: str, name: str = "echo", module: str = "plug_echo", distribution: str = "echo-plugin") -> None:
    install(folder, distribution, {module: code}, {name: f"{module}:create"})


def wrong(backend: Backend) -> str:
    return backend.check_configuration()


def test_without_a_choice_every_installed_one_is_offered(folder: Path) -> None:
    assert set(loader().offered()) == BUILT_IN
    plug_in(folder, GOOD.format(name="echo"))
    offered = loader().offered()
    assert set(offered) == {*BUILT_IN, "echo"}
    echo = offered["echo"]
    assert (echo.name, echo.kind, echo.local, echo.max_runs, wrong(echo)) == ("echo", BackendKind.SHARED, False, 3, "")


def test_only_what_is_named_is_imported(folder: Path) -> None:
    plug_in(folder, "raise RuntimeError('nobody asked for it')")
    assert set(loader(EXECUTOR_BACKENDS="hk-minimax, hk-minimax").offered()) == {"hk-minimax"}
    assert "plug_echo" not in sys.modules


def test_a_name_that_nobody_offers_is_a_matter_of_configuration(folder: Path) -> None:
    offered = loader(EXECUTOR_BACKENDS="hk-minimax,clsuter").offered()
    assert wrong(offered["clsuter"]) == (
        "EXECUTOR_BACKENDS names clsuter, which no installed distribution offers; installed are cecelia-run, hk-minimax"
    )
    assert offered["clsuter"].kind is None
    assert wrong(offered["hk-minimax"]) == ""


def test_only_a_backend_whose_processes_are_here_says_what_holds_them() -> None:
    here = loader(EXECUTOR_BACKENDS="cecelia-run,hk-minimax").offered()
    behind = loader(EXECUTOR_BACKENDS="cecelia-run", EXECUTOR_BRIDGE_URL="http://127.0.0.1:9").offered()
    said = [one.process_control for one in (*here.values(), *behind.values()) if isinstance(one, Plugged)]
    assert said in (["cgroup", "", ""], ["process_group", "", ""])


@pytest.mark.parametrize("value", ["a b", "name@host", "x" * 65, "-x"])
def test_what_is_no_name_stops_the_start(value: str) -> None:
    with pytest.raises(SettingsError, match="EXECUTOR_BACKENDS"):
        loader(EXECUTOR_BACKENDS=value)


BROKEN = {
    "no syntax": ("def create(:", "SyntaxError"),
    "an import that fails": ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
    "no such attribute": ("", "AttributeError"),
    "an import that ends the program": ("import sys\nsys.exit('go away')", "SystemExit: go away"),
    "a constructor that raises": ("def create(settings, environ):\n    raise ValueError('half configured')", "ValueError: half configured"),
    "other arguments": ("def create():\n    pass", "TypeError"),
    "nothing": ("def create(settings, environ):\n    return None", "has no method check_configuration, prepare, execute"),
    "another name": (GOOD.format(name="ohce"), "calls itself 'ohce'; must be 'echo'"),
    "no kind": (GOOD.format(name="echo").replace("BackendKind.SHARED", "'shared'"), "has the kind 'shared'"),
    "no limit": (GOOD.format(name="echo").replace("max_runs = 3", "max_runs = 0"), "has max_runs 0; must be 1 to 10000"),
    "a limit that is none": (GOOD.format(name="echo").replace("max_runs = 3", "max_runs = True"), "has max_runs True"),
    "a flag that is none": (GOOD.format(name="echo").replace("max_runs = 3", "max_runs = 3; local = 'no'"), "has local 'no'"),
}  # fmt: skip


@pytest.mark.parametrize(("code", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_one_that_cannot_be_made_says_why_and_stops_no_other(folder: Path, code: str, words: str) -> None:
    plug_in(folder, code)
    offered = loader().offered()
    assert words in wrong(offered["echo"])
    assert len(wrong(offered["echo"])) <= 500
    assert {name for name, backend in offered.items() if not wrong(backend)} >= {"hk-minimax"}


def test_two_distributions_cannot_offer_one_name(folder: Path) -> None:
    for number in ("one", "two"):
        plug_in(folder, GOOD.format(name="echo"), module=f"plug_{number}", distribution=f"plug-{number}")
    offered = loader().offered()
    assert wrong(offered["echo"]) == "several distributions offer echo: plug-one, plug-two; keep one of them"


def test_nobody_takes_the_name_of_a_built_in_one(folder: Path) -> None:
    plug_in(folder, GOOD.format(name="hk-minimax"), name="hk-minimax")
    minimax = loader(HK_MINIMAX_MAX_RUNS="5").offered()["hk-minimax"]
    assert (wrong(minimax), minimax.max_runs) == ("", 5)


def test_the_members_that_are_looked_at_are_the_protocols() -> None:
    members: Any = {name for name in vars(Backend) if not name.startswith("_")}
    assert members == {*METHODS, *FLAGS, "name", "kind", "max_runs"}


def test_the_backend_of_the_page_is_short_and_can_be_made(folder: Path) -> None:
    code = code_of_the_page()
    assert len(code.splitlines()) <= 40
    plug_in(folder, code, name="line-worker", module="plug_line_worker")
    made = BackendLoader(load_settings(ExecutorSettings, {}), {"LINE_WORKER": "127.0.0.1:7"}).offered()["line-worker"]
    assert (wrong(made), made.kind, made.max_runs) == ("", BackendKind.SHARED, 2)
    assert wrong(loader().offered()["line-worker"]) == "LINE_WORKER= is not host:port"
