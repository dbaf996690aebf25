"""Which server a URL is of, and what of a URL may be shown."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urljoin, urlsplit

from backtest_sync.errors import InvalidParamsError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def shown_url(url: str) -> str:
    """``url`` as errors and reprs show it: without user, password, query and fragment."""
    plain = re.split(r"[?#]", url)[0]
    scheme, mark, rest = plain.partition("://") if "://" in plain else ("", "", plain)
    authority, slash, path = rest.partition("/")
    return scheme + mark + authority.rpartition("@")[2] + slash + path


def check_endpoint(url: object) -> str:
    """``url``, when it is an HTTP or HTTPS URL with a host; else `InvalidParamsError`."""
    if not isinstance(url, str):
        raise InvalidParamsError(f"endpoint: expected a URL, got {type(url).__name__}")
    scheme, host, _ = origin(url)
    if scheme not in _DEFAULT_PORTS or not host:
        raise InvalidParamsError(
            f"{shown_url(url)} is not a usable endpoint: expected http:// or https:// and a host"
        )
    return url


def origin(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of ``url``: what a credential is for; blank for a malformed one."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return "", "", None
    return parts.scheme, parts.hostname or "", port


def joined(url: str, location: str) -> str:
    """Where a redirect from ``url`` leads; as it is when it is malformed."""
    try:
        return urljoin(url, location)
    except ValueError:
        return location


def is_loopback(url: str) -> bool:
    """Whether ``url`` leads to this machine itself."""
    host = origin(url)[1]
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
