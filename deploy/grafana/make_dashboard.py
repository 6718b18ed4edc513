"""Makes the Grafana dashboard: `python deploy/grafana/make_dashboard.py [FILE]` (default dashboards/cecelia-dispatch.json here).

Grafana reads the JSON, people read this. Needs the extra `dev`; the services know nothing of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common, dashboard

FILE = Path(__file__).parent / "dashboards" / "cecelia-dispatch.json"
SOURCE = dashboard.DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT = 8
QUANTILES = (0.5, 0.95)
# Calls that last as long as their caller likes: how long says nothing.
STREAMS = ".*(Watch|Stream).*"
# Each replica looks at the same database, so the greatest is as good as any; a hold is known to the leader alone.
LEADER = "* on (instance) group_left () cecelia_scheduler_leader"

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
NO_OR_YES = {0: ("no", GREEN), 1: ("yes", YELLOW)}
BREAKER_STATES = {0: ("closed", GREEN), 1: ("half-open", YELLOW), 2: ("open", RED)}
LEADERSHIP = {0: ("stands by", BLUE), 1: ("leads", GREEN)}

Query = tuple[str, str]
"""PromQL, and the legend of its series."""

Panel = Builder[dashboard.Panel]


def over_time(by: str, counter: str, matchers: str = "") -> str:
    """A counter's rise a second, by labels."""
    return f"sum by ({by}) (rate({counter}{{{matchers}}}[$__rate_interval]))"


def quantiles(by: str, histogram: str, matchers: str = "") -> list[Query]:
    """Median and 95th percentile of a histogram, by labels ('' for none)."""
    rise = over_time(f"le, {by}" if by else "le", f"{histogram}_bucket", matchers)
    named = " ".join(f"{{{{{label}}}}}" for label in by.split(", ")) if by else ""
    return [(f"histogram_quantile({q}, {rise})", f"{named} p{q * 100:.0f}".strip()) for q in QUANTILES]


def targets(queries: Sequence[Query], *, now: bool = False) -> list[Builder[Dataquery]]:
    """The queries as Grafana wants them, named A, B, …; over the dashboard's time, or for this moment alone."""
    made: list[Builder[Dataquery]] = []
    for name, (expr, legend) in zip("ABCDEFGH", queries, strict=False):
        query = prometheus.Dataquery().datasource(SOURCE).ref_id(name).expr(expr).legend_format(legend)
        made.append(query.instant() if now else query.range())
    return made


def limits(*steps: tuple[float | None, str]) -> builders.ThresholdsConfig:
    """Colours from a value on; the first step has none."""
    made = [dashboard.Threshold(value=value, color=colour) for value, colour in steps]
    return builders.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(made)


def words(meaning: Mapping[int, tuple[str, str]]) -> list[dashboard.ValueMapping]:
    """Numbers as a word and a colour."""
    options = {
        str(value): dashboard.ValueMappingResult(text=text, color=colour, index=number)
        for number, (value, (text, colour)) in enumerate(meaning.items())
    }
    return [dashboard.ValueMap(options=options)]


def number(title: str, description: str, expr: str, unit: str, colours: builders.ThresholdsConfig) -> stat.Panel:
    """One number, now."""
    panel = stat.Panel().title(title).description(description).datasource(SOURCE)
    panel.targets(targets([(expr, title)], now=True))
    panel.unit(unit).thresholds(colours).color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    panel.reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"])).no_value("–")
    return panel.graph_mode(common.BigValueGraphMode.NONE).height(4).span(4)


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str = "short",
    *,
    span: int = 12,
    highest: float | None = None,
    stacked: bool = False,
) -> timeseries.Panel:
    """Lines over time, from 0 up."""
    panel = timeseries.Panel().title(title).description(description).datasource(SOURCE).targets(targets(queries))
    legend = common_builders.VizLegendOptions().display_mode(common.LegendDisplayMode.LIST).show_legend(True)
    panel.legend(legend.placement(common.LegendPlacement.BOTTOM))
    panel.tooltip(common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI))
    panel.unit(unit).min(0).line_width(1).fill_opacity(25 if stacked else 5).height(HEIGHT).span(span)
    if highest is not None:
        panel.max(highest)
    if stacked:
        panel.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    return panel


def states(
    title: str, description: str, query: Query, meaning: Mapping[int, tuple[str, str]], *, span: int = 12
) -> statetimeline.Panel:
    """Bars of one state after another, a row each series."""
    panel = statetimeline.Panel().title(title).description(description).datasource(SOURCE).targets(targets([query]))
    panel.mappings(words(meaning)).color_scheme(builders.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    panel.thresholds(limits((None, meaning[0][1])))
    return panel.show_value(common.VisibilityMode.NEVER).merge_values(True).height(HEIGHT).span(span)


def choice(name: str, label: str, metric: str, of: str) -> builders.QueryVariable:
    """A variable with the values of a metric's label, all of them at first."""
    query: dict[str, object] = {"query": f"label_values({metric}, {of})", "refId": name}
    everything = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
    variable = builders.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    return variable.multi(True).include_all(True).all_value(".*").current(everything)


def note(name: str, expr: str, colour: str) -> builders.AnnotationQuery:
    """Marks the times in which a query has an answer."""
    return builders.AnnotationQuery().name(name).datasource(SOURCE).enable(True).icon_color(colour).expr(expr)


def glance() -> list[Panel]:
    """What to look at first."""
    return [
        number(
            "Leaders",
            "Replicas that lead. With none nothing is dispatched.",
            "sum(cecelia_scheduler_leader)",
            "short",
            limits((None, RED), (1, GREEN), (2, RED)),
        ),
        number(
            "Success of attempts",
            "Share of successful start verdicts in the window: what the success-rate guard looks at. – while there are none.",
            'max(cecelia_scheduler_window_success_ratio{window="attempts"} >= 0)',
            "percentunit",
            limits((None, RED), (0.3, YELLOW), (0.8, GREEN)),
        ),
        number(
            "Oldest due task",
            "How long the oldest task that is due has waited.",
            "max(cecelia_scheduler_oldest_due_task_age_seconds)",
            "s",
            limits((None, GREEN), (300, YELLOW), (1800, RED)),
        ),
        number(
            "Gates that hold",
            "Reasons for which a gate holds now.",
            f"sum(max by (reason) (cecelia_scheduler_hold_active {LEADER}))",
            "short",
            limits((None, GREEN), (1, YELLOW)),
        ),
        number(
            "Breakers not closed",
            "Breakers that are open or half-open; a backend with a breaker for each executor counts too while all of them are.",
            'sum(max by (key, state) (cecelia_scheduler_breaker_state{state!="CLOSED"})) or vector(0)',
            "short",
            limits((None, GREEN), (1, RED)),
        ),
        number(
            "Overrides",
            "Kinds of override in force: drain, billing pause, budget cap, a breaker opened by hand.",
            "sum(max by (kind) (cecelia_scheduler_override_active))",
            "short",
            limits((None, GREEN), (1, YELLOW)),
        ),
    ]


def dispatch() -> list[Panel]:
    """Decisions and attempts."""
    attempts = 'backend=~"$backend"'
    return [
        lines(
            "Success rate of both windows",
            "window_1h counts every decision, attempts start verdicts only. No line while a window is empty.",
            [("max by (window) (cecelia_scheduler_window_success_ratio >= 0)", "{{window}}")],
            "percentunit",
            highest=1,
        ),
        lines(
            "Decisions in the windows",
            "Below DISPATCH_MIN_SAMPLE attempts the success-rate guard does not judge.",
            [("max by (window) (cecelia_scheduler_window_samples)", "{{window}}")],
        ),
        lines(
            "Decisions by outcome",
            "Decisions a second.",
            [(over_time("outcome", "cecelia_scheduler_dispatch_decisions_total"), "{{outcome}}")],
            "ops",
            stacked=True,
        ),
        lines(
            "Decisions against a start, by reason",
            "Decisions a second. The reason codes are the same in the command line, the database and the errors.",
            [
                (
                    over_time("outcome, reason", "cecelia_scheduler_dispatch_decisions_total", 'outcome!="dispatched"'),
                    "{{outcome}} {{reason}}",
                )
            ],
            "ops",
            stacked=True,
        ),
        lines(
            "Attempts by backend",
            "Start verdicts a second.",
            [
                (
                    over_time("backend, outcome", "cecelia_scheduler_dispatch_attempts_total", attempts),
                    "{{backend}} {{outcome}}",
                )
            ],
            "ops",
        ),
        lines(
            "Start latency by backend",
            "From a task's submission to its start verdict.",
            quantiles("backend", "cecelia_scheduler_task_start_latency_seconds", attempts),
            "s",
        ),
    ]


def gates() -> list[Panel]:
    """What holds."""
    open_, half = (f'max by (key) (cecelia_scheduler_breaker_state{{state="{state}"}})' for state in ("OPEN", "HALF_OPEN"))
    return [
        states(
            "Gates that hold",
            "As the leader's last tick saw it.",
            (f"max by (reason) (cecelia_scheduler_hold_active {LEADER})", "{{reason}}"),
            NO_OR_YES,
        ),
        states(
            "Gates that would hold",
            "Those whose guard only observes (DISPATCH_RATE_GUARD, DISPATCH_BREAKER_GUARD).",
            (f"max by (reason) (cecelia_scheduler_hold_observed {LEADER})", "{{reason}}"),
            NO_OR_YES,
        ),
        states(
            "Overrides in force",
            "What somebody has set by hand, or what a billing answer has.",
            ("max by (kind) (cecelia_scheduler_override_active)", "{{kind}}"),
            NO_OR_YES,
        ),
        lines(
            "Age of overrides",
            "How long the oldest of each kind has been in force; no line without one.",
            [("time() - max by (kind) (cecelia_scheduler_override_since_timestamp_seconds > 0)", "{{kind}}")],
            "s",
        ),
        lines(
            "Drains that ended",
            "How long each source's drain took, told at its end.",
            quantiles("", "cecelia_scheduler_drain_duration_seconds"),
            "s",
        ),
        states(
            "Breakers",
            "The stored state: open stays open until a probe is claimed.",
            (f"2 * {open_} + {half}", "{{key}}"),
            BREAKER_STATES,
        ),
        lines(
            "Changes of breakers",
            "How often each went into a state, in each interval.",
            [("sum by (key, to) (increase(cecelia_scheduler_breaker_transitions_total[$__rate_interval]))", "{{key}} {{to}}")],
        ),
    ]


def queue() -> list[Panel]:
    """Tasks that have not ended."""
    by_status = "sum by (status) (max by (status, priority) (cecelia_scheduler_tasks))"
    by_priority = 'max by (priority) (cecelia_scheduler_tasks{status="queued"})'
    return [
        lines("Tasks by status", "Tasks that have not ended.", [(by_status, "{{status}}")], span=8, stacked=True),
        lines("Queued by priority", "Waiting tasks, due or not.", [(by_priority, "{{priority}}")], span=8, stacked=True),
        lines(
            "Oldest due task",
            "How long the oldest due task of each priority has waited.",
            [("max by (priority) (cecelia_scheduler_oldest_due_task_age_seconds)", "{{priority}}")],
            "s",
            span=8,
        ),
    ]


def ticking() -> list[Panel]:
    """The leader's work."""
    return [
        lines(
            "Tick duration",
            "How long a tick's transaction takes.",
            quantiles("", "cecelia_scheduler_tick_duration_seconds"),
            "s",
        ),
        lines(
            "Since the last tick",
            "Grows when the tick is stuck or nobody leads.",
            [("time() - max(cecelia_scheduler_tick_last_success_timestamp_seconds > 0)", "since the last tick")],
            "s",
        ),
        states("Leader", "Which replica leads.", ("cecelia_scheduler_leader", "{{instance}}"), LEADERSHIP),
        lines(
            "Slots by pool",
            "Budget and use: user is kept for people, internal for internal tasks, task_pool is what tasks get.",
            [("max by (pool, kind) (cecelia_scheduler_slots)", "{{pool}} {{kind}}")],
        ),
        lines(
            "Room on schedulers' disks",
            "What is left for the embedded PostgreSQL.",
            [("min by (instance, folder) (cecelia_scheduler_disk_free_bytes)", "{{instance}} {{folder}}")],
            "bytes",
            span=24,
        ),
    ]


def executors() -> list[Panel]:
    """Each machine and its runs."""
    chosen = 'instance=~"$executor"'
    both = f'{chosen}, backend=~"$backend"'
    return [
        lines(
            "Pressure",
            "1 leaves no slot. max is the one that counts.",
            [
                (
                    f"max by (instance, resource) (cecelia_executor_resource_pressure{{{chosen}}})",
                    "{{instance}} {{resource}}",
                )
            ],
            "percentunit",
        ),
        lines(
            "Slots",
            "What the pressure leaves, and what is let in of it: runs that have not grown yet have their share reserved.",
            [
                (f"max by (instance) (cecelia_executor_effective_slots{{{chosen}}})", "{{instance}} effective"),
                (f"max by (instance) (cecelia_executor_admission_slots{{{chosen}}})", "{{instance}} let in"),
            ],
        ),
        lines(
            "Stalls",
            "Share of the last 10 s in which all work waited for memory (from 10 % on nothing starts), or some for a core.",
            [
                (
                    f"max by (instance, resource) (cecelia_executor_resource_stall_ratio{{{chosen}}})",
                    "{{instance}} {{resource}}",
                )
            ],
            "percentunit",
        ),
        lines(
            "Backends set up rightly",
            "0: config_error; CheckAvailability says what is wrong.",
            [(f"min by (instance, backend) (cecelia_executor_backend_configured{{{both}}})", "{{instance}} {{backend}}")],
        ),
        lines(
            "What holds a run's processes",
            "1 for what is in force on the executor: a cgroup of its own, or its process groups.",
            [(f"max by (instance, kind) (cecelia_executor_process_control{{{chosen}}})", "{{instance}} {{kind}}")],
        ),
        lines(
            "Runs",
            "Runs that have not ended.",
            [(f"sum by (instance, backend, state) (cecelia_executor_runs{{{both}}})", "{{instance}} {{backend}} {{state}}")],
            stacked=True,
        ),
        lines(
            "Runs that ended",
            "Runs a second, by how they ended.",
            [
                (
                    over_time("backend, outcome", "cecelia_executor_run_duration_seconds_count", both),
                    "{{backend}} {{outcome}}",
                )
            ],
            "ops",
        ),
        lines(
            "Run duration",
            "From a run's acceptance to its end.",
            quantiles("backend", "cecelia_executor_run_duration_seconds", both),
            "s",
        ),
        lines(
            "Room on executors' disks",
            "What is left for the journal and the output of runs.",
            [(f"min by (instance, folder) (cecelia_executor_disk_free_bytes{{{chosen}}})", "{{instance}} {{folder}}")],
            "bytes",
        ),
    ]


def calls() -> list[Panel]:
    """The rpcs of both services."""
    panels: list[Panel] = []
    for service, prefix, chosen in (
        ("Scheduler", "cecelia_scheduler_", ""),
        ("Executor", "cecelia_executor_", 'instance=~"$executor"'),
    ):
        histogram = f"{prefix}rpc_server_duration_seconds"
        slow = over_time("le, method", f"{histogram}_bucket", f'method!~"{STREAMS}"' + (f", {chosen}" if chosen else ""))
        panels += [
            lines(
                f"{service}: slow calls",
                "95th percentile by method; streams are left out.",
                [(f"histogram_quantile(0.95, {slow})", "{{method}}")],
                "s",
            ),
            lines(
                f"{service}: calls by code",
                "Calls a second.",
                [(over_time("code", f"{histogram}_count", chosen), "{{code}}")],
                "ops",
            ),
        ]
    versions: list[Query] = [
        ("count by (version) (cecelia_scheduler_build_info)", "scheduler {{version}}"),
        ('count by (version) (cecelia_executor_build_info{instance=~"$executor"})', "executor {{version}}"),
    ]
    return [*panels, lines("Versions", "How many processes run which version.", versions, span=24, stacked=True)]


ROWS = {
    "At a glance": glance,
    "Dispatch": dispatch,
    "Gates": gates,
    "Queue": queue,
    "Tick and slots": ticking,
    "Executors": executors,
    "rpcs and versions": calls,
}


def make() -> str:
    """The dashboard's JSON."""
    board = builders.Dashboard("cecelia-dispatch").uid("cecelia-dispatch").tags(["cecelia-dispatch"])
    board.description("What is dispatched, what is held and why, and what the executors do.")
    board.time("now-6h", "now").refresh("30s").timezone("browser").tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    board.with_variable(
        builders.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(dashboard.VariableOption(selected=True, text="Prometheus", value="prometheus"))
    )
    board.with_variable(choice("backend", "Backend", "cecelia_scheduler_dispatch_attempts_total", "backend"))
    board.with_variable(choice("executor", "Executor", "cecelia_executor_build_info", "instance"))
    transitions = "sum by (key, to) (increase(cecelia_scheduler_breaker_transitions_total[$__rate_interval])) > 0"
    board.annotation(note("Breaker", transitions, RED))
    board.annotation(note("Override", "max by (kind) (cecelia_scheduler_override_active) == 1", YELLOW))
    board.annotation(note("Leader", "sum by (instance) (changes(cecelia_scheduler_leader[$__rate_interval])) > 0", BLUE))
    board.annotation(
        note(
            "New version",
            "sum by (version) (cecelia_scheduler_build_info unless on (version) cecelia_scheduler_build_info offset 5m)",
            BLUE,
        )
    )
    for title, panels in ROWS.items():
        board.with_row(builders.Row(title))
        for panel in panels():
            board.with_panel(panel)
    made = board.build()
    for id_, placed in enumerate(made.panels or [], 1):
        placed.id_val = id_
    return json.dumps(made, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else FILE).write_text(make(), encoding="utf-8")
