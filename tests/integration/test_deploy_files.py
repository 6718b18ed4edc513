"""The files under deploy/ hold together: with the settings, with the metrics, with each other, and in the eyes of their own tools.

A tool that is not installed skips its tests with a reason.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from executor_service.metrics import ExecutorMetrics
from executor_service.settings import ExecutorSettings
from scheduler_service.app import STOP_AT_THE_LATEST_S
from scheduler_service.core.routing import DEFAULT_BACKENDS
from scheduler_service.metrics import SchedulerMetrics
from scheduler_service.settings import SchedulerSettings
from service_runtime.settings import ServiceSettings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "cecelia-dispatch.json"
SETTINGS: dict[str, type[ServiceSettings]] = {"scheduler": SchedulerSettings, "executor": ExecutorSettings}
EXECUTOR_STOP_S = 60  # beyond its drain: executor_service/app.py, stop
PASSWORDS = {"POSTGRES_PASSWORD": "for-the-test", "GRAFANA_PASSWORD": "for-the-test"}


def tool(*names: str) -> str:
    """Where the first of these programs is; beside this Python or on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    pytest.skip(f"{' or '.join(names)} is not installed")


def call(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env={**os.environ, **environ}, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )


def compose() -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    return services


def seconds(span: str) -> int:
    """A span of whole seconds, such as 100s or 100."""
    return int(span.removesuffix("s"))


def assignments(text: str) -> dict[str, str]:
    """NAME=value lines, those in comments too."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", text, flags=re.MULTILINE))


def unit(service: str) -> dict[str, list[str]]:
    """Key and values of a systemd unit."""
    keys: dict[str, list[str]] = {}
    text = (DEPLOY / "systemd" / f"cecelia-{service}.service").read_text("utf-8")
    for key, value in re.findall(r"^(\w+)=(.*)$", text, flags=re.MULTILINE):
        keys.setdefault(key, []).append(value)
    return keys


def image_environment(service: str) -> dict[str, str]:
    """What the service's Dockerfile sets."""
    lines = (DEPLOY / service / "Dockerfile").read_text("utf-8").replace("\\\n", " ").splitlines()
    found = [pair for line in lines if line.startswith("ENV ") for pair in re.findall(r"(\w+)=(\S+)", line)]
    return {name: value.strip('"') for name, value in found}


# --- settings


@pytest.mark.parametrize("service", SETTINGS)
def test_every_setting_that_is_named_is_one(service: str) -> None:
    fields = {name.upper() for name in SETTINGS[service].model_fields}
    others = {"PGPASSWORD", "HOME"}  # libpq's and the shell's
    example = (DEPLOY / "systemd" / f"{service}.env.example").read_text("utf-8")
    unit_settings = dict(line.split("=", 1) for line in unit(service)["Environment"])
    for named in (image_environment(service), compose()[service]["environment"], unit_settings, assignments(example)):
        assert named
        assert set(named) - others <= fields


@pytest.mark.parametrize("service", SETTINGS)
def test_the_values_that_are_set_are_right(service: str) -> None:
    given = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in compose()[service]["environment"].items()}
    from_image = load_settings(SETTINGS[service], {**image_environment(service), **given})
    assert from_image.model_dump()["log_format"] == "json"
    for name, value in from_image.model_dump().items():
        if name.endswith(("_grpc_address", "_http_address")):
            assert value.startswith("0.0.0.0:")
    example = assignments((DEPLOY / "systemd" / f"{service}.env.example").read_text("utf-8"))
    load_settings(SETTINGS[service], example)


def test_compose_sets_what_a_container_needs() -> None:
    scheduler, executor = compose()["scheduler"]["environment"], compose()["executor"]["environment"]
    assert scheduler["INTERACTIVE_RESERVE"] == "0"
    assert executor["SESSION_PROCESS_NAME"] == ""
    assert executor["EXECUTOR_END_RUNS_ON_STOP"] == "true"
    assert executor["EXECUTOR_ID"]


def test_a_stop_has_the_time_it_takes() -> None:
    services = compose()
    drain_s = int(services["executor"]["environment"]["EXECUTOR_DRAIN_MS"]) / 1000
    assert seconds(services["executor"]["stop_grace_period"]) >= drain_s + EXECUTOR_STOP_S
    assert seconds(services["scheduler"]["stop_grace_period"]) >= STOP_AT_THE_LATEST_S
    default_drain_s = load_settings(ExecutorSettings, {}).drain.total_seconds()
    assert seconds(unit("executor")["TimeoutStopSec"][0]) >= default_drain_s + EXECUTOR_STOP_S
    assert seconds(unit("scheduler")["TimeoutStopSec"][0]) >= STOP_AT_THE_LATEST_S


def test_a_stop_of_the_executor_leaves_its_guards_alone() -> None:
    keys = unit("executor")
    assert keys["KillMode"] == ["process"]
    assert keys["OOMPolicy"] == ["continue"]
    # Each of these would break what tasks do, or what goes on over a restart.
    assert not {"PrivateTmp", "ProtectHome", "ProtectProc", "RestrictNamespaces", "MemoryDenyWriteExecute"} & set(keys)


# --- compose and images


def test_ports_are_published_on_loopback_only() -> None:
    published = [port for service in compose().values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_no_password_is_committed() -> None:
    text = (DEPLOY / "compose.yaml").read_text("utf-8")
    for line in text.splitlines():
        if "PASSWORD:" in line:
            assert re.search(r"\$\{\w+_PASSWORD:\?", line)
    example = (DEPLOY / ".env.example").read_text("utf-8")
    assert {name: value for name, value in assignments(example).items() if "PASSWORD" in name} == dict.fromkeys(PASSWORDS, "")
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_the_example_names_every_variable_of_compose() -> None:
    used = dict(re.findall(r"\$\{(\w+):[-?]([^}]*)\}", (DEPLOY / "compose.yaml").read_text("utf-8")))
    shown = assignments((DEPLOY / ".env.example").read_text("utf-8"))
    assert set(shown) == set(used) | {"COMPOSE_PROJECT_NAME"}
    assert {name: shown[name] for name in used if name not in PASSWORDS} == {n: used[n] for n in used if n not in PASSWORDS}


def test_the_images_get_what_they_are_made_of_and_nothing_else() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    assert all((ROOT / path).exists() for path in kept)
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    wheel = re.search(r"^packages = (\[\"service_runtime.*\])$", project, flags=re.MULTILINE)
    assert wheel is not None
    assert set(json.loads(wheel[1])) <= set(kept)


def test_prometheus_scrapes_where_the_services_serve() -> None:
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    targets = {target for job in config["scrape_configs"] for group in job["static_configs"] for target in group["targets"]}
    serving = {
        f"{service}:{image_environment(service)[f'{service.upper()}_HTTP_ADDRESS'].rpartition(':')[2]}" for service in SETTINGS
    }
    assert targets == serving


@pytest.mark.parametrize("service", SETTINGS)
def test_hadolint_finds_nothing(service: str) -> None:
    done = call(tool("hadolint"), "--no-color", "--failure-threshold", "style", str(DEPLOY / service / "Dockerfile"))
    assert (done.returncode, done.stdout) == (0, "")


def compose_command() -> list[str]:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    docker = shutil.which("docker")
    if docker is None or call(docker, "compose", "version").returncode != 0:
        pytest.skip("neither docker-compose nor docker compose is installed")
    return [docker, "compose"]


def test_compose_reads_the_file() -> None:
    done = call(*compose_command(), "-f", str(DEPLOY / "compose.yaml"), "config", **PASSWORDS)
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"postgres", "scheduler", "executor", "prometheus", "alertmanager", "grafana"}
    assert all(service["read_only"] and service["cap_drop"] == ["ALL"] for service in services.values())


def test_compose_refuses_to_start_without_passwords() -> None:
    done = call(*compose_command(), "-f", str(DEPLOY / "compose.yaml"), "config", **dict.fromkeys(PASSWORDS, ""))
    assert done.returncode != 0
    assert "deploy/.env" in done.stderr


# --- the health check


class _Ready(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b'{"ready": false, "reason": "draining"}')

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def served() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), type("_Service", (_Ready,), {}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def healthcheck(port: int) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-I", str(DEPLOY / "healthcheck.py"), "SCHEDULER_HTTP_ADDRESS")
    # A proxy that refuses: it must not be asked.
    return call(*words, SCHEDULER_HTTP_ADDRESS=f"0.0.0.0:{port}", http_proxy="http://127.0.0.1:9")


def test_the_health_check_passes_while_the_service_is_ready(served: HTTPServer) -> None:
    assert healthcheck(served.server_port).returncode == 0


def test_the_health_check_fails_and_says_why(served: HTTPServer) -> None:
    served.RequestHandlerClass.status = 503  # type: ignore[attr-defined]
    done = healthcheck(served.server_port)
    assert done.returncode == 1
    assert "503" in done.stderr
    assert "draining" in done.stderr


def test_the_health_check_fails_when_nobody_answers() -> None:
    done = healthcheck(9)
    assert done.returncode == 1
    assert "does not answer" in done.stderr


# --- systemd


@pytest.mark.parametrize("service", SETTINGS)
def test_systemd_reads_the_unit(service: str, tmp_path: Path) -> None:
    name = f"cecelia-{service}.service"
    text = (DEPLOY / "systemd" / name).read_text("utf-8")
    # The program is not installed here, and its absence is all that would be said.
    (tmp_path / name).write_text(re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", text, flags=re.MULTILINE), "utf-8")
    done = call(tool("systemd-analyze"), "verify", str(tmp_path / name))
    # It warns of most mistakes and still exits with 0.
    said = [line for line in (done.stdout + done.stderr).splitlines() if name in line]
    assert (done.returncode, said) == (0, [])


def test_the_units_start_what_the_package_installs() -> None:
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    for service in SETTINGS:
        assert f"\n{service}-service = " in project
        assert unit(service)["ExecStart"] == [f"/opt/cecelia-dispatch/bin/{service}-service"]
        assert unit(service)["EnvironmentFile"] == [f"-/etc/cecelia-dispatch/{service}.env"]
        assert f'ENTRYPOINT ["/opt/cecelia-dispatch/bin/{service}-service"]' in (DEPLOY / service / "Dockerfile").read_text()


# --- Prometheus and Grafana


def board() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return read


def queries() -> list[tuple[str, str]]:
    """Title and PromQL of every panel and annotation, Grafana's variables filled in."""
    panels = [(panel["title"], target["expr"]) for panel in board()["panels"] for target in panel.get("targets", [])]
    notes = [(note["name"], note["expr"]) for note in board()["annotations"]["list"] if "expr" in note]
    filled = [(title, re.sub(r"\$(executor|backend)\b", ".*", expr)) for title, expr in panels + notes]
    return [(title, expr.replace("$__rate_interval", "5m")) for title, expr in filled]


def known_metrics() -> dict[str, str]:
    """Name and type of every metric, as the services register them; and those that are coming."""
    registry = CollectorRegistry()
    SchedulerMetrics(registry, "test", DEFAULT_BACKENDS)
    ExecutorMetrics(registry, "test", ["hk-minimax"])
    return {family.name: family.type for family in registry.collect()}


def series_names() -> dict[str, str]:
    """Every name that PromQL may use, and the metric that it belongs to."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
    return {f"{name}{suffix}": name for name, kind in known_metrics().items() for suffix in suffixes[kind]}


def used_names(text: str) -> set[str]:
    return set(re.findall(r"\bcecelia_(?:scheduler|executor)_[a-z0-9_]+", text))


def test_the_dashboard_uses_metrics_that_there_are() -> None:
    assert used_names(DASHBOARD.read_text("utf-8")) <= set(series_names())


def test_the_dashboard_shows_every_metric() -> None:
    names = series_names()
    shown = {names[name] for _title, expr in queries() for name in used_names(expr)}
    assert shown == set(known_metrics())


def test_every_variable_of_a_query_is_one_of_the_dashboard() -> None:
    made = {variable["name"] for variable in board()["templating"]["list"]}
    text = DASHBOARD.read_text("utf-8")
    used = set(re.findall(r"\$\{?([a-z]\w*)", text))
    assert used == made


def test_every_panel_says_what_it_shows() -> None:
    panels = [panel for panel in board()["panels"] if panel["type"] != "row"]
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
    assert len({panel["id"] for panel in board()["panels"]}) == len(board()["panels"])


def test_grafana_is_told_of_the_source_and_the_folder_that_compose_mounts() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text("utf-8"))["datasources"][0]
    provider = yaml.safe_load((provisioning / "dashboards" / "cecelia-dispatch.yaml").read_text("utf-8"))["providers"][0]
    chosen = next(variable for variable in board()["templating"]["list"] if variable["name"] == "datasource")
    assert source["uid"] == chosen["current"]["value"]
    grafana = compose()["grafana"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"


@pytest.mark.parametrize("file", ["prometheus/prometheus.yml", "examples/prometheus.yml"])
def test_promtool_reads_the_configuration(file: str) -> None:
    done = call(tool("promtool"), "check", "config", str(DEPLOY / file))
    assert done.returncode == 0, done.stderr


def test_promtool_reads_every_query(tmp_path: Path) -> None:
    promtool = tool("promtool")
    # It checks queries only where a rule has them.
    rules = [{"record": f"query:{number}", "expr": expr} for number, (_title, expr) in enumerate(queries())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), "utf-8")
    done = call(promtool, "check", "rules", str(file))
    assert done.returncode == 0, done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_promtool_would_find_a_mistake(tmp_path: Path) -> None:
    promtool = tool("promtool")
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [{"record": "a", "expr": "sum by (b (c)"}]}]}), "utf-8")
    assert call(promtool, "check", "rules", str(file)).returncode != 0


def test_the_committed_dashboard_is_what_the_script_makes(tmp_path: Path) -> None:
    if importlib.util.find_spec("grafana_foundation_sdk") is None:
        pytest.skip("grafana-foundation-sdk is not installed (extra dev)")
    done = call(sys.executable, str(DEPLOY / "grafana" / "make_dashboard.py"), str(tmp_path / "made.json"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "made.json").read_text("utf-8") == DASHBOARD.read_text("utf-8"), (
        "stale: run .venv/bin/python deploy/grafana/make_dashboard.py"
    )
