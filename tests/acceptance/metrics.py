"""What a running service shows at /metrics."""

from __future__ import annotations

import httpx
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.acceptance.programs import Program


async def scraped(program: Program) -> str:
    """The page of one service."""
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        response = await client.get(f"http://127.0.0.1:{program.http_port}/metrics")
        assert response.status_code == 200
        return response.text


def families(text: str) -> dict[str, Metric]:
    """Metrics by name, counters without their `_total`."""
    return {family.name: family for family in text_string_to_metric_families(text)}


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    """The samples of this full name, by their labels' values in the order of the page."""
    return {tuple(s.labels.values()): s.value for family in families(text).values() for s in family.samples if s.name == name}
