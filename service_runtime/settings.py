"""Settings from the environment: a frozen value that is right, or an error that names every mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

S = TypeVar("S", bound="ServiceSettings")

_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):(?P<port>[0-9]{1,5})")
_TEN_YEARS_MS = 10 * 366 * 86_400_000
_SHOWN_CHARS = 80
_URL_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@\s]*@")


def _host_port(value: str) -> str:
    match = _HOST_PORT.fullmatch(value)
    if match is None or int(match["port"]) > 65_535:
        raise ValueError("must be host:port with a port of 0 to 65535, such as 127.0.0.1:50051 or [::1]:50051")
    return value


HostPort = Annotated[str, AfterValidator(_host_port)]
"""host:port; port 0 lets the system choose."""

Milliseconds = Annotated[int, Field(ge=1, le=_TEN_YEARS_MS)]
"""A time span in ms, at most ten years."""


class SettingsError(Exception):
    """Wrong settings; the text has a line for each: the variable, its value, what would be right."""


class ServiceSettings(BaseSettings):
    """Base of a service's settings: a field `tick_interval_ms` is the variable TICK_INTERVAL_MS."""

    empty_is_a_value: ClassVar[frozenset[str]] = frozenset()
    """Fields for which an empty variable says something else than an unset one."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed in: the environment is read once, by `load_settings`."""
        return (init_settings,)


def load_settings(cls: type[S], environ: Mapping[str, str]) -> S:
    """The settings in a mapping of environment variables; an empty value means unset. Raises SettingsError."""
    known = {name.lower(): value for name, value in environ.items() if name.lower() in cls.model_fields}
    given = {name: value for name, value in known.items() if value != "" or name in cls.empty_is_a_value}
    try:
        return cls(**given)
    except ValidationError as error:
        lines = [_line(cls, given, mistake) for mistake in error.errors(include_url=False, include_context=False)]
        raise SettingsError("\n".join(dict.fromkeys(lines))) from None


def _line(cls: type[ServiceSettings], given: Mapping[str, str], mistake: Any) -> str:
    name = str(mistake["loc"][0]) if mistake["loc"] else ""
    text = str(mistake["msg"]).removeprefix("Value error, ")
    field = cls.model_fields.get(name)
    meaning = f" ({field.description})" if field is not None and field.description else ""
    return f"{name.upper()}={_shown(cls, name, given.get(name, ''))}: {text}{meaning}"


def without_password(url: str) -> str:
    """A URL to show: with stars for its password."""
    return _URL_PASSWORD.sub(r"\1:********@", url)


def _shown(cls: type[ServiceSettings], name: str, value: str) -> str:
    field = cls.model_fields.get(name)
    if field is not None and SecretStr.__name__ in str(field.annotation):
        return "********"
    shown = without_password(value)
    return repr(shown if len(shown) <= _SHOWN_CHARS else shown[:_SHOWN_CHARS] + "…")
