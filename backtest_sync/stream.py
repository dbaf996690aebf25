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
        self._tls = isinstance(sock, ssl.SSLSocket)
        self._sending = threading.Lock()
        self._receiving = self._sending if self._tls else threading.Lock()
        self._closed = False
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
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

    def receive(self) -> bytes | None:
        """What is there, up to some size; ``None`` when nothing is; empty at the end of the stream."""
        with self._receiving:
            self._check_open()
            self.drained = True
            try:
                size = self._sock.recv_into(self._buffer)
            except (BlockingIOError, ssl.SSLWantReadError):
                self.read_event = READ
                return None
            except ssl.SSLWantWriteError:
                self.read_event = WRITE
                return None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
        self.read_event = READ
        # a TLS object may hold more than the socket shows: there, only asking again tells
        self.drained = not self._tls and size < _BUFFER_BYTES
        return bytes(self._buffer[:size])

    def send(self, data: memoryview) -> int:
        """Write what goes; gives how many bytes went, 0 when it is time to `wait`."""
        with self._sending:
            self._check_open()
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                return 0
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as want:
                self.write_event = READ if isinstance(want, ssl.SSLWantReadError) else WRITE
                self.must_repeat = True
                return 0
            self.write_event = WRITE
            self.must_repeat = False
            return sent

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
