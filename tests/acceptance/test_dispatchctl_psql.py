"""`dispatchctl psql` with a real psql on the embedded database."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cecelia.scheduler.v1 import scheduler_service_pb2 as pb

from dispatchctl.__main__ import main
from tests.acceptance.command_line import DEADLINE_S, Capture, assert_three_lines, cli
from tests.acceptance.programs import Pair

pytestmark = pytest.mark.usefixtures("at_the_pair")


def test_psql_reads_and_the_database_refuses_to_write(finished: pb.Task) -> None:
    query = "SELECT value_json FROM working_memory WHERE key = 'dispatch_stats'"
    found = json.loads(cli("psql", "-c", query, "--", "--csv", "-At").stdout.strip().strip('"').replace('""', '"'))
    assert found["window_1h"]["success"] >= 1
    assert "read-only transaction" in cli("psql", "-c", "DELETE FROM tasks", status=1).stderr
    attempt = cli("psql", "-c", "SET default_transaction_read_only = off", "-c", "DELETE FROM tasks", status=1)
    assert "permission denied" in attempt.stderr


def test_psql_tells_other_programs_how_to_connect(finished: pb.Task, running: Pair) -> None:
    file = running.folder / "scheduler" / "pg_service.conf"
    assert file.stat().st_mode & 0o777 == 0o600
    exports = cli("psql", "--env").stdout
    assert exports == f"export PGSERVICEFILE={file}\nexport PGSERVICE=cecelia\n"
    program = "import psycopg; print(psycopg.connect('').execute('SELECT current_user').fetchone()[0])"
    call = ["sh", "-c", f"{exports}exec {sys.executable} -c {shlex.quote(program)}"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert done.stdout == "cecelia_reader\n"


def test_psql_says_when_nothing_answers(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "pg_service.conf").write_text("[cecelia]\nhost=127.0.0.1\nport=1\n", encoding="utf-8")
    assert main(["psql", "--data-dir", str(tmp_path)]) == 4
    assert_three_lines(capsys.readouterr().err, "unreachable")
    (tmp_path / "pg_service.conf").write_text("[cecelia\n", encoding="utf-8")
    assert main(["psql", "--data-dir", str(tmp_path)]) == 1
    assert_three_lines(capsys.readouterr().err, "unreadable")
