"""The bytes of one connected socket, plain or TLS, for one thread that reads and others that write."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import ssl
import sys
import threading

from backtest_sync.inbox import wait_slice
from backtest_sync.limits import Deadline

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# of the selectors, those that need no descriptor of their own
if sys.platform == "win32":
    Selector = selectors.SelectSelector
else:
    Selector = selectors.PollSelector

_BUFFER_BYTES = 64 * 1024
# A write that waits for the peer's TLS records looks again this often: the reader may take them first.
_HANDSHAKE_WAIT = 0.05


class ByteStream:
    """Reads and writes without blocking; whoever has to wait does so outside its lock.

    OpenSSL allows one thread at a time in a TLS object, and Python does not see to it: a reader beside a
    writer breaks connections. So each single call happens under one lock, and no call blocks in it.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._lock = threading.Lock()
        self._closed = False
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._tls = isinstance(sock, ssl.SSLSocket)
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
        with self._lock:
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
        with self._lock:
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
        with Selector() as selector:
            selector.register(self._sock, self.write_event)
            while True:
                left = wait_slice(deadline.remaining())
                if self.write_event == READ:
                    selector.select(_HANDSHAKE_WAIT if left is None else min(left, _HANDSHAKE_WAIT))
                    return not deadline.expired
                if selector.select(left):
                    return True
                if deadline.expired:
                    return False

    def shutdown(self) -> None:
        """End the connection both ways, which wakes whoever waits for it."""
        # not SSLSocket.shutdown, which drops the TLS object under whoever uses it
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
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
