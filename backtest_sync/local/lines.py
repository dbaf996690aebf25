"""Files of JSON lines, plain or compressed: read as a stream, written whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from backtest_sync.errors import BacktestClientError
from backtest_sync.protocol import blobs, jsontext

if TYPE_CHECKING:
    from types import TracebackType

#: The longest line that is read, in bytes: a large block is some 10 MB of it.
MAX_LINE_BYTES = 128 * 2**20
#: The longest file that is read, in bytes after decompression.
MAX_FILE_BYTES = 64 * 2**30

_CHUNK = 64 * 2**10
#: Read at once of a zstd file: small, since what comes of it is held at once.
_ZSTD_CHUNK = 4 * 2**10
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
#: What one zstd frame of a written file holds, in bytes: a reader needs memory for one.
_ZSTD_FRAME = 4 * 2**20


class BundleError(BacktestClientError, ValueError):
    """A bundle is missing, damaged or foreign, or does not hold what it was asked for.

    ``line`` counts from 1; ``None`` where the file as a whole is meant.
    """

    def __init__(self, path: str, reason: str, *, line: int | None = None) -> None:
        where = path if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


def read_lines(path: str, limit: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers; what it is compressed with shows in its first bytes.

    ``limit``: the longest line, in bytes (`MAX_LINE_BYTES`). BundleError where the file can't be
    read, is damaged, cut off in a line, or holds too long a line.
    """
    longest = MAX_LINE_BYTES if limit is None else limit
    number = 0
    pending: list[bytes] = []
    size = total = 0
    try:
        with open(path, "rb") as file:
            for chunk in _decompressed(file):
                total += len(chunk)
                if total > MAX_FILE_BYTES:
                    raise BundleError(path, f"holds more than {MAX_FILE_BYTES} bytes")
                *ended, rest = chunk.split(b"\n")
                for piece in ended:
                    number += 1
                    pending.append(piece)
                    line = b"".join(pending)
                    if len(line) > longest:
                        raise BundleError(path, _too_long(longest), line=number)
                    yield number, line
                    pending.clear()
                    size = 0
                pending.append(rest)
                size += len(rest)
                if size > longest:
                    raise BundleError(path, _too_long(longest), line=number + 1)
    except OSError as error:
        raise BundleError(path, error.strerror or str(error)) from error
    except (EOFError, zlib.error, ValueError) as error:
        if isinstance(error, BundleError):
            raise
        reason = f"damaged, the rest can't be decompressed: {error}"
        raise BundleError(path, reason, line=number + 1) from error
    if any(pending):
        yield number + 1, b"".join(pending)


def _too_long(longest: int) -> str:
    return f"longer than {longest} bytes"


def _decompressed(file: IO[bytes]) -> Iterator[bytes]:
    magic = file.read(4)
    file.seek(0)
    if magic.startswith(_GZIP_MAGIC):
        with gzip.GzipFile(fileobj=file) as unpacked:
            while chunk := unpacked.read(_CHUNK):
                yield chunk
    elif magic == _ZSTD_MAGIC:
        stream = blobs.StreamDecompressor()
        while chunk := file.read(_ZSTD_CHUNK):
            yield stream.feed(chunk)
        if not stream.at_end_of_frame:
            raise ValueError("it is cut off")
    else:
        while chunk := file.read(_CHUNK):
            yield chunk


class LineWriter:
    """Writes JSON lines to ``path``, compressed as its name asks: ``.gz``, ``.zst``, else not.

    They go to a temporary file beside it, which takes its name in ``finish``: the file appears
    whole or not at all. As a context manager it finishes, or, after an exception, forgets. The
    same lines give the same bytes. BundleError where ``path`` exists already (unless ``overwrite``)
    or can't be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        self.path = os.fspath(path)
        self._overwrite = overwrite
        self._refuse_existing()
        self._zstd = self.path.endswith(".zst")
        if self._zstd:
            blobs.compress(b"")  # says so here when the extra is missing
        parent, name = os.path.split(self.path)
        with self._writing():
            handle, self._temporary = tempfile.mkstemp(dir=parent or ".", prefix=f".{name}.")
        self._file: IO[bytes] = os.fdopen(handle, "wb")
        self._gzip: gzip.GzipFile | None = None
        if self.path.endswith(".gz"):
            self._gzip = gzip.GzipFile("", "wb", 9, self._file, mtime=0)
        self._held = io.BytesIO()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BundleError(self.path, f"can't be written: {error.strerror}") from error

    def _refuse_existing(self) -> None:
        if not self._overwrite and os.path.exists(self.path):
            raise BundleError(self.path, "exists already: choose another name or remove it")

    def write(self, value: Any) -> None:
        """Adds one line."""
        line = jsontext.dumps(value).encode() + b"\n"
        with self._writing():
            if self._gzip is not None:
                self._gzip.write(line)
            elif self._zstd:
                self._held.write(line)
                if self._held.tell() >= _ZSTD_FRAME:
                    self._end_frame()
            else:
                self._file.write(line)

    def _end_frame(self) -> None:
        self._file.write(blobs.compress(self._held.getvalue()))
        self._held = io.BytesIO()

    def finish(self) -> None:
        """Ends the file and gives it its name."""
        with self._writing():
            if self._gzip is not None:
                self._gzip.close()
            if self._held.tell():
                self._end_frame()
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._refuse_existing()
            _open_to_readers(self._temporary)
            os.replace(self._temporary, self.path)

    def forget(self) -> None:
        """Leaves nothing behind."""
        with contextlib.suppress(OSError):  # a full disk: what can't be flushed need not be
            if self._gzip is not None:
                self._gzip.close()
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def __enter__(self) -> LineWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self.forget()
            return
        try:
            self.finish()
        except BaseException:
            self.forget()
            raise


def _open_to_readers(path: str) -> None:
    """The mode that a plainly created file would have: mkstemp makes a private one."""
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
