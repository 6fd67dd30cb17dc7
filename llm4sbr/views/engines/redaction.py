"""Secrets of a request: neither shown in messages nor stored with answers."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

_SHORTEST = 6  # characters; shorter values are placeholders, and redacting them would garble messages
_SECRET_NAME = re.compile(
    r"(^|[_-])(key|secret|passw(or)?d|passphrase|authorization|credentials?)$"
    r"|(api|access|auth|bearer|session|id)[_-]?(key|token)$|^token$",
    re.IGNORECASE,
)


def is_secret(name: str) -> bool:
    """Whether a field of a request holds a secret by its name.

    >>> [is_secret(name) for name in ("api_key", "X-Auth-Token", "max_tokens", "stop_token", "tokenizer")]
    [True, True, False, False, False]
    """
    return _SECRET_NAME.search(name) is not None


def without_secrets(value: Any) -> Any:
    """Return a JSON value without the fields that hold secrets.

    >>> without_secrets({"seed": 0, "auth": {"api_key": "sk-1", "region": "eu"}})
    {'seed': 0, 'auth': {'region': 'eu'}}
    """
    if isinstance(value, Mapping):
        return {name: without_secrets(part) for name, part in value.items() if not is_secret(str(name))}
    if isinstance(value, list | tuple):
        return [without_secrets(part) for part in value]
    return value


def secrets_of(value: Any) -> set[str]:
    """Return the texts of the fields that hold secrets."""
    if isinstance(value, Mapping):
        found = {str(part) for name, part in value.items() if is_secret(str(name)) and part is not None}
        return found.union(*(secrets_of(part) for part in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*map(secrets_of, value))
    return set()


def secrets_of_address(url: str) -> set[str]:
    """Return the password of an address, its basic authorisation, and the values of its query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return set()
    found = {value for _, value in parse_qsl(parts.query)}
    login = unquote(parts.netloc.rpartition("@")[0])
    if login:
        found |= {login, login.partition(":")[2], b64encode(login.encode()).decode()}
    return found


def hide_login(text: str) -> str:
    """Redact ``user:password@`` and the values of a query in addresses.

    >>> hide_login("http://me:hunter2@host/v1?key=sk-1&x=2 said no")
    'http://…@host/v1?key=…&x=… said no'
    """
    text = re.sub(r"//[^/@\s]*@", "//…@", text)
    return re.sub(r"([?&][^=&\s]+=)[^&\s]+", r"\1…", text)


def redact(text: str, secrets: Iterable[str]) -> str:
    """Replace secrets in a message, the longest first, and logins in its addresses."""
    for secret in sorted(filter(lambda one: len(one) >= _SHORTEST, secrets), key=len, reverse=True):
        text = text.replace(secret, "…")
    return hide_login(text)
