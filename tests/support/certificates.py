"""A certificate authority for tests, made once for each process."""

from __future__ import annotations

import ssl
from functools import cache

import trustme

from backtest_sync.upgrade import default_tls_context


@cache
def authority() -> trustme.CA:
    """The authority."""
    return trustme.CA()


def server_tls(*names: str) -> ssl.SSLContext:
    """A server's context with a certificate for ``names``, or for this machine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*(names or ("localhost", "127.0.0.1"))).configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    """A client's context that trusts the authority."""
    context = default_tls_context()
    authority().configure_trust(context)
    return context
