"""Every test leaves no thread and no descriptor behind, and talks to loopback only."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# a test does the same each time, and is not judged by the clock
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    threads = set(threading.enumerate())
    descriptors = _sockets()
    yield
    limit = time.monotonic() + 5
    while True:
        left = [t for t in threading.enumerate() if t not in threads and t.is_alive()]
        extra = _sockets() - descriptors
        if not left and not extra:
            return
        if time.monotonic() > limit:
            break
        gc.collect()
        time.sleep(0.005)  # polls for an end that has no event; a clean test never gets here
    pytest.fail(f"left behind: threads {[t.name for t in left]}, sockets {sorted(extra)}")


def _sockets() -> set[str]:
    """The sockets that this process holds, by inode (Linux; elsewhere the check is of threads alone)."""
    if not sys.platform.startswith("linux"):
        return set()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the developer's shell sets must not reach a test."""
    for name in (
        "SIMULATOR_URL",
        "SIMULATOR_API_KEY",
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for the network fails at once."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple):
            host = str(address[0])
            assert host.startswith("127.") or host in ("localhost", "::1"), (
                f"{host} is not loopback"
            )
        return real(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", connect)
