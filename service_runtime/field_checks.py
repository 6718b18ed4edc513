"""Checks of a request's fields: collects every wrong one with its value and what would be right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from service_runtime.errors import FieldViolation, InvalidArgument

T = TypeVar("T")
V = TypeVar("V")

VIOLATIONS_MAX = 20
_SHOWN_CHARS = 40


def shown(value: object) -> str:
    """A value for an error text, shortened."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"


class FieldChecker:
    """Collects what is wrong with one request. `done` raises InvalidArgument with all of it."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []
        self._wrong = 0

    @property
    def wrong_so_far(self) -> int:
        """How many violations were noted."""
        return self._wrong

    def wrong(self, field: str, description: str) -> None:
        """Notes one violation; those beyond the first 20 are only counted."""
        self._wrong += 1
        if len(self._violations) < VIOLATIONS_MAX:
            self._violations.append(FieldViolation(field, description))

    def few(self, field: str, values: Sequence[V], most: int) -> Sequence[V]:
        """As many values as are allowed: what is beyond is noted, and not even looked at."""
        if len(values) > most:
            self.wrong(field, f"has {len(values)} values; at most {most} are allowed")
        return values[:most]

    def done(self) -> None:
        """Raises InvalidArgument if anything was wrong; it names at most 20 fields."""
        if self._violations:
            told = tuple(self._violations)
            raise InvalidArgument(f"{told[0].field} {told[0].description}", reason="INVALID_ARGUMENT", violations=told)

    def uuid(self, field: str, text: str, *, required: bool = True) -> UUID | None:
        """A UUID in its usual form; '' is None where it is not required."""
        if not text and not required:
            return None
        try:
            value = UUID(text)
        except ValueError:
            value = None
        if value is None or str(value) != text.lower():
            self.wrong(field, f"is {shown(text)}; must be a UUID such as 123e4567-e89b-12d3-a456-426614174000")
            return None
        return value

    def text(self, field: str, text: str, most: int, *, required: bool = False) -> str:
        """Text within its bound, without NUL."""
        if "\x00" in text:
            self.wrong(field, "contains a NUL character; must be text without NUL")
        elif len(text) > most:
            self.wrong(field, f"has {len(text)} characters; at most {most} are allowed")
        elif required and not text:
            self.wrong(field, "is empty; must be given")
        return text

    def texts(self, field: str, values: Sequence[str], most: int, most_chars: int) -> list[str]:
        """Several texts within their bounds."""
        return [self.text(f"{field}[{i}]", value, most_chars) for i, value in enumerate(self.few(field, values, most))]

    def converted(self, field: str, convert: Callable[[], T]) -> T | None:
        """The value of a conversion that raises ValueError with what is wrong."""
        try:
            return convert()
        except ValueError as error:
            self.wrong(field, str(error))
            return None
