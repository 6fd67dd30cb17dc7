"""The page to try the server, as files of this package. It holds no data: it gets them from the API."""

from __future__ import annotations

from importlib.resources import files

from llm4sbr.serving.server.exchange import Answer

# Only what this server sends runs, looks and connects; a part of the catalogue that is HTML does nothing.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    (b"content-security-policy", _POLICY),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_FILES = {
    "/": ("page.html", b"text/html; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
}


def page_answers() -> dict[str, Answer]:
    """The answer of each path of the page."""
    folder = files("llm4sbr.serving.server")
    return {
        path: Answer((folder / name).read_bytes(), kind=kind, headers=_HEADERS)
        for path, (name, kind) in _FILES.items()
    }
