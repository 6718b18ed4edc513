"""A real Chromium, without a screen, at the status page."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
# As root, and on a machine that reaches nobody but itself.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000
AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")

expect.set_options(timeout=PATIENCE_MS)


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The browser."""
    async with async_playwright() as playwright:
        launched = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, timeout=PATIENCE_MS)
        try:
            yield launched
        finally:
            await launched.close()


async def new_page(context: BrowserContext, url: str) -> Page:
    """A tab on which the live page has come. What goes wrong in its scripts is kept in `context.wrong`."""
    page = await context.new_page()
    await page.goto(url)
    await page.locator("main#live").wait_for()
    await expect(page.locator("#connection")).to_have_text("live")
    return page


@contextlib.asynccontextmanager
async def page_of(url: str, **options: Any) -> AsyncIterator[Page]:
    """The live page in a browser of its own; fails if a script fails or the content security policy stops anything."""
    async with chromium() as launched:
        context = await launched.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        with watched(context) as wrong:
            yield await new_page(context, url)
        assert wrong == []


@contextlib.contextmanager
def watched(context: BrowserContext) -> Any:
    """Collects what scripts do wrong in any tab of a context."""
    wrong: list[str] = []
    context.on("weberror", lambda error: wrong.append(str(error.error)))
    context.on("console", lambda message: wrong.append(message.text) if "Content Security Policy" in message.text else None)
    yield wrong


def section(page: Page, name: str) -> Locator:
    """A section by its heading."""
    return page.get_by_role("region", name=name, exact=True)


def row(page: Page, name: str, words: str) -> Locator:
    """The row of a section that has these words."""
    return section(page, name).locator("tbody tr").filter(has_text=words)


async def violations(page: Page) -> list[str]:
    """What axe-core finds."""
    await page.evaluate(AXE)
    found = await page.evaluate("axe.run()")
    return [f"{one['id']}: {[node['target'] for node in one['nodes']][:3]}" for one in found["violations"]]
