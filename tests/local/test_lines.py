"""Files of JSON lines: compressions, caps, whole or not at all."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from backtest_sync.errors import BacktestClientError
from backtest_sync.local import lines
from backtest_sync.local.lines import BundleError, LineWriter, read_lines
from backtest_sync.protocol import blobs

SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zst"]
VALUES: list[Any] = [{"n": n, "text": "é" * n} for n in range(200)]


def written(path: Path, values: list[Any] = VALUES) -> Path:
    with LineWriter(path) as writer:
        for value in values:
            writer.write(value)
    return path


def texts(path: Path, limit: int | None = None) -> list[bytes]:
    return [line for _, line in read_lines(str(path), limit)]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_written_is_read(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}")
    numbered = list(read_lines(str(path)))
    assert [number for number, _ in numbered] == list(range(1, len(VALUES) + 1))
    assert texts(path) == texts(written(tmp_path / "b.jsonl"))
    assert os.listdir(tmp_path).count(f"a{suffix}") == 1
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_lines_give_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    first, second = (written(tmp_path / f"{name}{suffix}").read_bytes() for name in "ab")
    assert first == second


def test_the_compression_shows_in_the_content_not_in_the_name(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl.gz").rename(tmp_path / "a.json")
    assert len(texts(path)) == len(VALUES)


def test_several_frames_of_zstd_are_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "_ZSTD_FRAME", 500)
    path = written(tmp_path / "a.zst")
    assert path.read_bytes().count(b"\x28\xb5\x2f\xfd") > 10
    assert texts(path) == texts(written(tmp_path / "b.jsonl"))


def test_a_line_without_its_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\n2")
    assert texts(path) == [b"1", b"2"]


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
@pytest.mark.parametrize("kept", [0.3, 0.99])
def test_a_cut_off_file_says_where(tmp_path: Path, suffix: str, kept: float) -> None:
    path = written(tmp_path / f"a{suffix}", [os.urandom(40).hex() for _ in range(2000)])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BundleError, match="can't be decompressed") as caught:
        texts(path)
    assert caught.value.path == str(path)
    assert caught.value.line is not None


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_a_damaged_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", [os.urandom(40).hex() for _ in range(2000)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    content[len(content) // 2 + 1] ^= 0x55
    path.write_bytes(content)
    # A checksum tells for gzip; zstd frames carry none, so that there the JSON may have to.
    if suffix == ".jsonl.gz":
        with pytest.raises(BundleError, match="damaged"):
            texts(path)


@pytest.mark.parametrize("pack", [gzip.compress, blobs.compress])
def test_a_bomb_is_stopped_at_the_cap(tmp_path: Path, pack: Any) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(pack(b"[" * 20_000_000))
    assert path.stat().st_size < 100_000
    with pytest.raises(BundleError, match="longer than 1000000 bytes") as caught:
        texts(path, 1_000_000)
    assert caught.value.line == 1


def test_the_whole_file_is_capped_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_FILE_BYTES", 1000)
    with pytest.raises(BundleError, match="more than 1000 bytes"):
        texts(written(tmp_path / "a.gz"))


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(BundleError) as caught:
            texts(path)
        assert str(path) in str(caught.value)
        assert caught.value.line is None
        assert isinstance(caught.value, BacktestClientError)


def test_an_existing_file_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [1])
    with pytest.raises(BundleError, match="exists already"):
        LineWriter(path)
    assert texts(path) == [b"1"]
    with LineWriter(path, overwrite=True) as writer:
        writer.write(2)
    assert texts(path) == [b"2"]


def test_one_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    writer = LineWriter(path)
    writer.write(1)
    path.write_text("somebody else's")
    with pytest.raises(BundleError, match="exists already"):
        writer.__exit__(None, None, None)
    assert path.read_text() == "somebody else's"
    assert os.listdir(tmp_path) == ["a.jsonl"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_exception_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    def fail() -> None:
        with LineWriter(tmp_path / f"a{suffix}") as writer:
            writer.write(1)
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="can't be written"):
        LineWriter(tmp_path / "none" / "a.jsonl")


def test_a_written_file_is_as_readable_as_any(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert written(tmp_path / "a.gz").stat().st_mode == plain.stat().st_mode


def test_a_full_disk_is_said_and_nothing_left(tmp_path: Path, monkeypatch: Any) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    writer = LineWriter(tmp_path / "a.jsonl.gz")
    writer.write(1)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="can't be written: No space left"):
        writer.__exit__(None, None, None)
    assert os.listdir(tmp_path) == []
