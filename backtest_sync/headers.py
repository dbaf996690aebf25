"""The headers that go with a request, over HTTP and WebSocket alike (protocol/control.md §2)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from backtest_sync.errors import InvalidParamsError
from backtest_sync.version import __version__

#: How the client names itself: a product token of its own, which servers count as a custom client.
USER_AGENT = f"backtest-sync/{__version__}"
#: The header that carries the API key.
API_KEY_HEADER = "X-API-Key"

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FORBIDDEN = re.compile(r"[^\t\x20-\x7e]")


def check_api_key(api_key: object) -> str:
    """``api_key``, when it can stand in a header; else `InvalidParamsError` without showing it."""
    if not isinstance(api_key, str):
        raise InvalidParamsError(f"api_key: expected text, got {type(api_key).__name__}")
    check_header(API_KEY_HEADER, api_key)
    return api_key


def check_headers(headers: object) -> dict[str, str]:
    """Headers that can be sent, from any mapping; else `InvalidParamsError`, which shows no value."""
    if not isinstance(headers, Mapping):
        raise InvalidParamsError(f"headers: expected a mapping, got {type(headers).__name__}")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidParamsError(
                f"headers: expected text for text, got {type(value).__name__} for {name!r:.80}"
            )
        check_header(name, value)
    return dict(headers)


def check_header(name: str, value: str) -> None:
    """`InvalidParamsError`, which does not show the value, for a header that can't be sent."""
    if not _NAME.fullmatch(name):
        raise InvalidParamsError(f"invalid header name: {name!r:.80}")
    label = "API key" if name.lower() == API_KEY_HEADER.lower() else name
    found = _FORBIDDEN.search(value)
    if found:
        raise InvalidParamsError(
            f"invalid {label} header value: character {found.start() + 1} of {len(value)} "
            "is a line break, a control character or not ASCII"
        )
    if value != value.strip():
        raise InvalidParamsError(f"invalid {label} header value: blanks around it; strip them")
