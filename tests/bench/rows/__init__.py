"""One file a row of the table in docs/benchmarks.md; each offers COMPARISONS."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from tests.bench.measuring.comparison import Comparison


def all_comparisons() -> dict[str, Comparison]:
    """Every comparison, by name. Raises ValueError when two have one name."""
    found: dict[str, Comparison] = {}
    for module in iter_modules(__path__):
        for comparison in import_module(f"{__name__}.{module.name}").COMPARISONS:
            if comparison.name in found:
                raise ValueError(f"two comparisons are named {comparison.name}")
            found[comparison.name] = comparison
    return found
