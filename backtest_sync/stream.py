"""The bytes of one connected socket, plain or TLS, for one thread that reads and others that write."""

from __future__ import annotations

import contextlib
import errno
import math
import select
import socket
import ssl
import sys
import threading
from contextlib import AbstractContextManager
from typing import Any

from backtest_sync.inbox import wait_slice
from backtest_sync.limits import Deadline

READ, WRITE = 1, 4  # as `select.poll` has them


class SelectPoll:
    """`select.poll` for Windows, which has none."""

    def __init__(self) -> None:
        self._events: dict[int, int] = {}

    def register(self, descriptor: int, events: int) -> None:
        self._events[descriptor] = events

    def unregister(self, descriptor: int) -> None:
        del self._events[descriptor]

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        reads = [fd for fd, events in self._events.items() if events & READ]
        writes = [fd for fd, events in self._events.items() if events & WRITE]
        # of the third, a connection that failed
        found = select.select(reads, writes, writes, None if timeout is None else timeout / 1000)
        return [(fd, 0) for fd in set().union(*found)]


if sys.platform == "win32":
    _Poll = SelectPoll
else:
    _Poll = select.poll

# the longest wait that the system takes at once is some 24 days; who waits longer looks again
_LONGEST_POLL = 24 * 3600.0

_BUFFER_BYTES = 64 * 1024
_BUFFER = (_BUFFER_BYTES,)
# A write that waits for the peer's TLS records looks again this often: the reader may take them first.
_HANDSHAKE_WAIT = 0.05


class Poller:
    """Waits for some of several descriptors; it needs none of its own."""

    def __init__(self) -> None:
        poll = _Poll()
        self.watch = poll.register
        self.unwatch = poll.unregister
        self._poll = poll.poll

    def wait(self, seconds: float | None) -> list[tuple[int, int]]:
        """The descriptors that can be read or written, or that failed; empty when the time is up."""
        if seconds is None:
            return self._poll(None)
        return self._poll(math.ceil(min(seconds, _LONGEST_POLL) * 1000))


class ByteStream:
    """Reads and writes without blocking; whoever has to wait does so outside its locks.

    OpenSSL allows one thread at a time in a TLS object, and Python does not see to it: a reader beside a
    writer breaks connections. So there each single call happens under one lock, and no call blocks in it.
    The directions of a plain socket have a lock each: an answer can be read before the call that sent the
    question has returned.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.tls = isinstance(sock, ssl.SSLSocket)
        self._sending = threading.Lock()
        # re-entrant on a plain socket, where a signal handler may receive in the middle of it
        self._receiving: AbstractContextManager[Any] = (
            self._sending if self.tls else threading.RLock()
        )
        self._closed = False
        #: what to wait for before the next `receive` and `send`
        self.read_event = READ
        self.write_event = WRITE
        #: nothing was left to read when the last `receive` returned
        self.drained = False
        #: the bytes that the last `send` refused may be on their way: they must come again
        self.must_repeat = False

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._sock.fileno()

    def receive(self, into: list[bytes]) -> bool:
        """Append what is there, up to some size, or empty bytes at the end of the stream; whether there was any.

        On a plain socket, what a signal handler raises finds the bytes in the socket or in ``into``.
        """
        with self._receiving:
            self._check_open()
            self.drained = True
            try:
                into.extend(map(self._sock.recv, _BUFFER))  # one step, as signal handlers see it
            except (BlockingIOError, ssl.SSLWantReadError):
                self.read_event = READ
                return False
            except ssl.SSLWantWriteError:
                self.read_event = WRITE
                return False
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                into.append(b"")
                return True
            self.read_event = READ
            last = into[-1:]  # nothing, where a signal handler has come and received all by now
            # a TLS object may hold more than the socket shows: there, only asking again tells
            self.drained = not self.tls and (not last or len(last[0]) < _BUFFER_BYTES)
            return True

    def send(self, data: memoryview, gone: list[int]) -> bool:
        """Write what goes, and append how many bytes that were. False when it is time to `wait`.

        On a plain socket, what a signal handler raises finds all bytes that went in ``gone``.
        """
        with self._sending:
            self._check_open()
            try:
                gone.extend(map(self._sock.send, (data,)))  # one step, as signal handlers see it
            except BlockingIOError:
                return False
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as want:
                self.write_event = READ if isinstance(want, ssl.SSLWantReadError) else WRITE
                self.must_repeat = True
                return False
            self.write_event = WRITE
            self.must_repeat = False
            return True

    def wait(self, deadline: Deadline) -> bool:
        """Wait until `send` may go on; false at the deadline."""
        poller = Poller()
        poller.watch(self._sock.fileno(), self.write_event)
        while True:
            left = wait_slice(deadline.remaining())
            if self.write_event == READ:
                poller.wait(_HANDSHAKE_WAIT if left is None else min(left, _HANDSHAKE_WAIT))
                return not deadline.expired
            if poller.wait(left):
                return True
            if deadline.expired:
                return False

    def shutdown(self) -> None:
        """End the connection both ways, which wakes whoever waits for it."""
        # not SSLSocket.shutdown, which drops the TLS object under whoever uses it
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back; for the thread that receives."""
        with self._sending:
            self._closed = True
            self._sock.close()

    def forget(self) -> None:
        """Give back this process's copy of another process's socket; nothing is sent."""
        self._sock.close()

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.ENOTCONN, "the socket is closed")


class Bell:
    """Wakes a thread that waits for a socket, from any thread, a signal handler or a finaliser."""

    def __init__(self) -> None:
        # re-entrant, since a finaliser may run inside `close`
        self._lock = threading.RLock()
        self._ear, self._hammer = socket.socketpair()
        self._ear.setblocking(False)
        self._hammer.setblocking(False)
        self._closed = False

    def fileno(self) -> int:
        """The descriptor that becomes readable."""
        return self._ear.fileno()

    def ring(self) -> None:
        """Make the descriptor readable."""
        with self._lock:  # or the descriptor might be another's by now
            if not self._closed:
                with contextlib.suppress(OSError):  # full: it is ringing
                    self._hammer.send(b"\0")

    def quiet(self) -> None:
        """Stop the ringing that there was so far."""
        with contextlib.suppress(BlockingIOError):
            while len(self._ear.recv(1024)) == 1024:
                pass

    def close(self) -> None:
        """Give the descriptors back."""
        with self._lock:
            self._closed = True
            self.forget()

    def forget(self) -> None:
        """Give back this process's copies of another process's descriptors."""
        self._ear.close()
        self._hammer.close()


class Lookout:
    """What one thread waits by for a socket or for another thread, which may call `release`, as of a lock."""

    def __init__(self, descriptor: int) -> None:
        self._bell = Bell()
        self._poller = Poller()
        self._poller.watch(self._bell.fileno(), READ)
        self._poller.watch(descriptor, READ)
        #: whether the socket could be read when the last wait ended
        self.readable = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Wait until released, or until the socket can be read; whether it was released."""
        bell, released, self.readable = self._bell.fileno(), False, False
        for descriptor, _ in self._poller.wait(timeout if blocking else 0):
            if descriptor == bell:
                released = True
            else:
                self.readable = True
        if released:
            self._bell.quiet()
        return released

    def release(self) -> None:
        """Wake who waits, or else the next who will."""
        self._bell.ring()

    def close(self) -> None:
        """Give the descriptors back."""
        self._bell.close()

    def forget(self) -> None:
        """Give back this process's copies of another process's descriptors."""
        self._bell.forget()
