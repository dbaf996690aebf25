"""zstd: the protocol's blobs, and the one never-ending stream of a subscription connection.

Frames carry no content size (protocol/reroute.md §1, protocol/subscriptions.md §3), so they are
read as streams. What comes out is bounded as it comes: compressed data can promise a thousand
times its size. Needs the extra ``zstd``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from backtest_sync.errors import BacktestClientError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: What a blob inside a message may hold once decompressed, bytes.
MAX_BLOB_BYTES = 64 * 2**20

_LEVEL = 3
_MAX_WINDOW = 2**23  # what RFC 8878 asks every decoder to take
# Input goes in by steps, so that what comes out of one is bounded: 4 bytes can give 128 KiB.
_STEP = 512


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise BacktestClientError(
            "zstd data needs the zstandard package: pip install 'backtest-sync[zstd]'"
        ) from error
    return zstandard


def is_available() -> bool:
    """Whether the ``zstandard`` package is installed."""
    try:
        _zstandard()
    except BacktestClientError:
        return False
    return True


def compress(data: bytes) -> bytes:
    """One zstd frame of ``data``, level 3, without content size."""
    stream = _zstandard().ZstdCompressor(level=_LEVEL, write_content_size=False).compressobj()
    frame: bytes = stream.compress(data) + stream.flush()
    return frame


def decompress(data: bytes, limit: int = MAX_BLOB_BYTES) -> bytes:
    """What one or more whole zstd frames hold, at most ``limit`` bytes.

    ``ValueError`` where ``data`` is no zstd, is cut off, or holds more.
    """
    out: list[bytes] = []
    room = limit
    while True:
        frame = StreamDecompressor(room)
        piece, data = frame.feed_frame(data)
        out.append(piece)
        room -= len(piece)
        if not data:
            return b"".join(out)


def decompress_stream(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What a file of one or more whole zstd frames holds, piece by piece as it is read.

    ``ValueError`` where it is corrupt or cut off. The caller bounds what it keeps.
    """
    frame = StreamDecompressor()
    for chunk in chunks:
        while chunk:
            piece, chunk = frame.feed_some(chunk)
            yield piece
            if frame.is_over:
                frame = StreamDecompressor()
    if frame.is_begun:
        raise ValueError("corrupt zstd data: the frame is cut off")


class StreamCompressor:
    """The server's end of a compressed subscription connection: one frame without an end."""

    __slots__ = ("_flush", "_stream")

    def __init__(self) -> None:
        zstandard = _zstandard()
        compressor = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=False)
        self._stream = compressor.compressobj()
        self._flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK

    def feed(self, message: bytes) -> bytes:
        """The binary frame that carries ``message``."""
        frame: bytes = self._stream.compress(message) + self._stream.flush(self._flush)
        return frame


class StreamDecompressor:
    """The client's end of a compressed subscription connection.

    One for each connection: only its first frame has a header, and each one builds on those
    before it. ``limit`` bounds what one frame may hold, in bytes. After an error the stream is
    out of step and of no more use.
    """

    __slots__ = ("_error", "_limit", "_stream", "is_begun", "is_over")

    def __init__(self, limit: int = MAX_BLOB_BYTES) -> None:
        zstandard = _zstandard()
        self._stream = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW).decompressobj()
        self._error = zstandard.ZstdError
        self._limit = limit
        self.is_begun = False
        self.is_over = False

    def feed(self, frame: bytes) -> bytes:
        """The message that a binary frame carries; ``ValueError`` where it is corrupt or over."""
        message, rest = self._take(frame)
        if rest:
            raise ValueError("corrupt zstd data: the stream has ended, and more follows")
        return message

    def feed_some(self, data: bytes) -> tuple[bytes, bytes]:
        """What a part of a frame holds, and what follows the frame where it ended in it."""
        self.is_begun = True
        message, rest = self._take(data)
        self.is_over = self._stream.eof
        return message, rest

    def feed_frame(self, data: bytes) -> tuple[bytes, bytes]:
        """What a whole zstd frame holds, and what follows it; ``ValueError`` if it is cut off."""
        message, rest = self._take(data)
        if not self._stream.eof:
            raise ValueError("corrupt zstd data: the frame is cut off")
        return message, rest

    def _take(self, data: bytes) -> tuple[bytes, bytes]:
        out: list[bytes] = []
        size = 0
        for start in range(0, len(data), _STEP):
            if self._stream.eof:
                return b"".join(out), data[start:]
            try:
                piece: bytes = self._stream.decompress(data[start : start + _STEP])
            except self._error as error:
                raise ValueError(f"corrupt zstd data: {error}") from error
            size += len(piece)
            if size > self._limit:
                raise ValueError(f"zstd data holds more than {self._limit} bytes")
            out.append(piece)
            unused: bytes = self._stream.unused_data
            if unused:
                return b"".join(out), unused + data[start + _STEP :]
        return b"".join(out), b""
