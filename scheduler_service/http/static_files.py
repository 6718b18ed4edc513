"""The status page's own files, read once; they lie under a name made of their content, so that browsers may keep them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import PurePath

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from scheduler_service.http.safety_headers import safety_headers

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
PAGE_HEADERS = safety_headers("script", "style", "img", "connect", "worker")


class StaticFiles:
    """The files by name, and the path below which they lie."""

    def __init__(self, found: Mapping[str, bytes]) -> None:
        self._files = dict(found)
        digest = hashlib.sha256()
        for name in sorted(found):
            digest.update(f"{name} {len(found[name])}\n".encode() + found[name])
        self.version = digest.hexdigest()[:16]

    @property
    def root(self) -> str:
        """Where they lie, below the base path."""
        return f"/static/{self.version}"

    async def serve(self, request: Request) -> Response:
        """One file. Raises HTTPException 404."""
        name = request.path_params["name"]
        if request.path_params["version"] != self.version or name not in self._files:
            raise HTTPException(404)
        headers = {"cache-control": "public, max-age=31536000, immutable", **PAGE_HEADERS}
        return Response(self._files[name], media_type=TYPES[_suffix(name)], headers=headers)


def load_static_files() -> StaticFiles:
    """What lies in the package's folder `static`."""
    folder = files("scheduler_service.http") / "static"
    return StaticFiles({entry.name: entry.read_bytes() for entry in folder.iterdir() if _suffix(entry.name) in TYPES})


def _suffix(name: str) -> str:
    return PurePath(name).suffix
