"""What `websocket-client` does here: the opening handshake, and the form of the frames that are sent.

TCP, proxy, TLS, the HTTP upgrade and its headers are its work; this module bounds it, keeps secrets out of
its errors, and translates them. Its receiving and its closing are not used.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
import struct
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import websocket

from backtest_sync.errors import (
    ConnectError,
    InvalidParamsError,
    RequestTimeoutError,
    shorten,
)
from backtest_sync.headers import API_KEY_HEADER, check_headers
from backtest_sync.origins import is_loopback, shown_url

_UNAUTHORIZED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
_MAX_BODY_IN_MESSAGE = 200

# of a frame's head (RFC 6455 §5.2): bits of its first and second byte, and its longer forms
_FINAL = _MASKED = 0x80
_MIDDLE, _LONG = struct.Struct("!BBH"), struct.Struct("!BBQ")


def format_frame(opcode: int, payload: bytes) -> bytes:
    """One whole frame as a client sends it.

    The library masks it; its header is made here, since the library's takes as long as all else in a short send.
    """
    size = len(payload)
    if size < 126:
        head = bytes((_FINAL | opcode, _MASKED | size))
    elif size < 1 << 16:
        head = _MIDDLE.pack(_FINAL | opcode, _MASKED | 126, size)
    else:
        head = _LONG.pack(_FINAL | opcode, _MASKED | 127, size)
    key = os.urandom(4)
    masked: bytes = websocket.ABNF.mask(key, payload)
    return head + key + masked


def default_tls_context() -> ssl.SSLContext:
    """TLS 1.2 or newer, verified against the system's roots; takes some 20 ms to make."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _WebSocket(websocket.WebSocket):
    """A WebSocket whose opening can be called off from another thread, whatever it is at."""

    called_off = False

    @property
    def sock(self) -> socket.socket | None:
        return self._socket

    @sock.setter
    def sock(self, sock: socket.socket | None) -> None:
        self._socket = sock
        if self.called_off:
            self.call_off()

    def call_off(self) -> None:
        self.called_off = True
        sock = self._socket
        if sock is not None:
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)


class Upgrade:
    """One opening handshake. `run` does it, `call_off` ends it from another thread."""

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: float,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._host, secure = _check_url(url)
        self._url = url
        self._headers = check_headers(headers)
        self._api_key = next(
            (v for n, v in headers.items() if n.lower() == API_KEY_HEADER.lower()), None
        )
        self._timeout = timeout
        context = (ssl_context or default_tls_context()) if secure else None
        self._websocket = _WebSocket(
            sslopt={"context": context} if context else None, enable_multithread=False
        )

    def run(self) -> socket.socket:
        """The connected socket, right behind the server's answer. `ConnectError`, `RequestTimeoutError`."""
        try:
            self._websocket.connect(self._url, **self._options())  # type: ignore[no-untyped-call]
            status = self._websocket.getstatus()
            if status != HTTPStatus.SWITCHING_PROTOCOLS:
                raise websocket.WebSocketException(f"HTTP {status}")
            sock = self._websocket.sock
            assert sock is not None  # noqa: S101 - or connect would have raised
            self._websocket.sock = None
        except Exception as error:  # noqa: BLE001 - malformed answers raise whatever they break
            self._websocket.shutdown()  # type: ignore[no-untyped-call]
            raise self._translate(error) from _without_secrets(error)
        return sock

    def call_off(self) -> None:
        """Make a `run` in another thread fail soon, if it is still at it."""
        self._websocket.call_off()

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "header": self._headers,
            "timeout": self._timeout,
            "suppress_origin": True,
            # a redirect would take the API key to another origin
            "redirect_limit": 0,
        }
        if is_loopback(self._url):
            # what is on this machine needs no proxy; there is no other way to say so
            options |= {"http_proxy_host": "none", "http_proxy_port": 1, "http_no_proxy": ["*"]}
        return options

    def _translate(self, error: Exception) -> Exception:
        url = shown_url(self._url)
        if isinstance(error, (websocket.WebSocketTimeoutException, TimeoutError)):
            return RequestTimeoutError("connecting", self._timeout)
        status = getattr(error, "status_code", None) or self._websocket.getstatus()
        if status is not None and status != HTTPStatus.SWITCHING_PROTOCOLS:
            body = getattr(error, "resp_body", None)
            return ConnectError(url, self._refusal(status, body), status=status)
        return ConnectError(url, self._reason(error) + self._proxy_hint())

    def _proxy_hint(self) -> str:
        variable = "https_proxy" if self._url.startswith("wss") else "http_proxy"
        is_set = os.environ.get(variable) or os.environ.get(variable.upper())
        if not is_set or is_loopback(self._url):
            return ""
        return f" ({variable} is set: it may be the proxy that fails)"

    def _reason(self, error: Exception) -> str:
        if isinstance(error, websocket.WebSocketAddressException):
            return f"the host name {self._host!r} could not be resolved: {_text(error)}"
        if isinstance(error, websocket.WebSocketProxyException):
            return f"the proxy refused: {_text(error)}"
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"the server's certificate is not trusted: {error.verify_message}. "
                "Where it is a private authority's, pass an ssl_context that knows it"
            )
        if isinstance(error, ssl.SSLError):
            return f"the TLS handshake failed: {_text(error)}"
        if isinstance(error, ConnectionRefusedError):
            return "connection refused; is the server running, and the port right?"
        if isinstance(error, (websocket.WebSocketConnectionClosedException, ConnectionError)):
            return "the server closed the connection during the handshake"
        if isinstance(error, OSError):
            return _text(error)
        return self._redact(f"the server's answer is no WebSocket handshake: {_text(error)}")

    def _refusal(self, status: int, body: bytes | None) -> str:
        text = f"the server answered HTTP {status}"
        with contextlib.suppress(ValueError):
            text += f" {HTTPStatus(status).phrase}"
        if body:
            shown = self._redact(body.decode(errors="replace"))
            text += f": {shorten(' '.join(shown.split()), _MAX_BODY_IN_MESSAGE)}"
        if 300 <= status < 400:
            return f"{text}. Redirects are not followed: give the final address"
        if status in _UNAUTHORIZED and self._api_key is not None:
            which = "is the likely reason" if self._api_key else "is missing"
            return f"{text}. The API key {which}: set api_key or SIMULATOR_API_KEY"
        return text

    def _redact(self, text: str) -> str:
        """A server may send back what it was sent."""
        return text.replace(self._api_key, "***") if self._api_key else text


def _check_url(url: str) -> tuple[str, bool]:
    """Host and whether it is TLS."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
        if parts.scheme not in ("ws", "wss"):
            raise ValueError("the scheme must be ws:// or wss://")
        if not host:
            raise ValueError("it names no host")
        if re.search(r"[\x00-\x20\x7f]", url):
            raise ValueError("it has a space or control character")
    except ValueError as error:
        raise InvalidParamsError(f"{shown_url(url)!r} is not a usable endpoint: {error}") from None
    return host, parts.scheme == "wss"


def _text(error: Exception) -> str:
    """What an error says, without its number."""
    if error.args and isinstance(error.args[0], OSError):
        error = error.args[0]
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


def _without_secrets(error: Exception) -> Exception | None:
    """``error`` as a cause to show; not one whose text repeats the server's whole answer."""
    return None if isinstance(error, websocket.WebSocketException) else error
