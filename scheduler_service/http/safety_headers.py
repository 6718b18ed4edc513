"""The headers of every page: it loads its own files and nothing else, is in no frame, and its types are not guessed."""

from __future__ import annotations


def safety_headers(*kinds: str) -> dict[str, str]:
    """Those of a page that may load these kinds of files, such as `script` and `style`, and only its own."""
    own = "".join(f"{kind}-src 'self'; " for kind in kinds)
    return {
        "content-security-policy": f"default-src 'none'; {own}base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
