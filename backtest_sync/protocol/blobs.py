"""zstd: the protocol's blobs, and the one never-ending stream of a subscription connection.

Frames carry no content size (protocol/reroute.md §1, protocol/subscriptions.md §3), so they are
read as streams. What comes out is bounded as it comes: compressed data can promise a thousand
times its size. Needs the extra ``zstd``.
"""

from __future__ import annotations

from typing import Any

from backtest_sync.errors import BacktestClientError

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
    stream = StreamDecompressor(limit)
    out = stream.feed(data)
    if not data or not stream.at_end_of_frame:
        raise ValueError("corrupt zstd data: it is cut off")
    return out


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

    One for each connection: only its first message has a zstd header, and each one builds on those
    before it. ``limit`` bounds what one message may hold, in bytes. After an error the stream is
    out of step and of no more use.
    """

    __slots__ = ("_decompressor", "_error", "_limit", "_stream", "at_end_of_frame")

    def __init__(self, limit: int = MAX_BLOB_BYTES) -> None:
        zstandard = _zstandard()
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        self._error = zstandard.ZstdError
        self._stream = self._decompressor.decompressobj()
        self._limit = limit
        #: Whether the last message ended a zstd frame, so that the next one begins anew.
        self.at_end_of_frame = False

    def feed(self, message: bytes) -> bytes:
        """What a binary message carries; ``ValueError`` where it is corrupt or over the limit."""
        if len(message) <= _STEP:
            return self._step(message, self._limit)
        out: list[bytes] = []
        room = self._limit
        for start in range(0, len(message), _STEP):
            piece = self._step(message[start : start + _STEP], room)
            room -= len(piece)
            out.append(piece)
        return b"".join(out)

    def _step(self, data: bytes, room: int) -> bytes:
        """What comes of a piece of input, across the ends of frames."""
        out = b""
        while data:
            if self.at_end_of_frame:
                self._stream = self._decompressor.decompressobj()
            try:
                out += self._stream.decompress(data)
            except self._error as error:
                raise ValueError(f"corrupt zstd data: {error}") from error
            if len(out) > room:
                raise ValueError(f"zstd data holds more than {self._limit} bytes")
            self.at_end_of_frame = self._stream.eof
            data = self._stream.unused_data
        return out
