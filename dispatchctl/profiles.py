"""Profiles: named sets of options in a TOML file, for whoever operates more than one scheduler.

    [profiles.staging]
    address = "10.0.0.5:50051"
    executor = "10.0.0.5:50052"
    timeout = "30s"
    output = "wide"

DISPATCH_CONFIG_FILE names the file, DISPATCH_PROFILE the profile; without it `default` is taken where there is one.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from dispatchctl.failures import ExitStatus, Failure

DEFAULT_PROFILE = "default"


def _unusable(what: str, why: str, remedy: str) -> Failure:
    return Failure(what, f"bad_profile: {why}", remedy, ExitStatus.USAGE)


def load_profile(environ: Mapping[str, str], keys: Mapping[str, click.ParamType[Any]]) -> Mapping[str, Any]:
    """The options of the chosen profile by name; `keys` are those that it may have. Raises Failure."""
    named_file, name = environ.get("DISPATCH_CONFIG_FILE", ""), environ.get("DISPATCH_PROFILE", "")
    file = Path(named_file or os.path.join(click.get_app_dir("cecelia-dispatch"), "config.toml")).expanduser()
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if not named_file and not name:
            return {}
        remedy = f"write it, such as: [profiles.{name or DEFAULT_PROFILE}]; or unset DISPATCH_PROFILE and DISPATCH_CONFIG_FILE"
        raise _unusable("the profiles cannot be read", f"{file} does not exist", remedy) from error
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is no TOML in UTF-8 ({error})"
        raise _unusable("the profiles cannot be read", f"{file}: {why}", "correct it, or set DISPATCH_CONFIG_FILE") from error
    return _chosen(document, name, file, keys)


def _chosen(document: Mapping[str, Any], name: str, file: Path, keys: Mapping[str, click.ParamType[Any]]) -> Mapping[str, Any]:
    profiles = document.get("profiles", {})
    if unknown := sorted(set(document) - {"profiles"}):
        raise _unusable("the profiles cannot be read", f"{file} has the unknown key {unknown[0]!r}", "write [profiles.NAME]")
    if not isinstance(profiles, dict) or not all(isinstance(profile, dict) for profile in profiles.values()):
        raise _unusable("the profiles cannot be read", f"{file}: profiles holds no tables", "write [profiles.NAME]")
    if name and name not in profiles:
        known = ", ".join(sorted(profiles)) or "none"
        raise _unusable(f"there is no profile {name!r}", f"{file} has {known}", "set DISPATCH_PROFILE to one of them")
    name = name or DEFAULT_PROFILE
    chosen: dict[str, Any] = {}
    for key, value in profiles.get(name, {}).items():
        if key not in keys:
            why = f"{file}: profiles.{name} has the unknown key {key!r}"
            raise _unusable(f"the profile {name!r} cannot be used", why, f"the keys are: {', '.join(keys)}")
        try:
            chosen[key] = keys[key].convert(value, None, None)
        except click.BadParameter as error:
            why = f"{file}: profiles.{name}.{key}: {error.message}"
            raise _unusable(f"the profile {name!r} cannot be used", why, f"correct {key}") from error
    return chosen
