"""Bundles: the files of blocks that a local session replays.

A file of JSON lines, compressed or not (local/lines.py):

1. the header ``{"format": "backtest-sync bundle", "version": 1, "source": text, "firstSlot",
   "lastSlot", "ranges": [{"startSlot", "endSlot", "kind"}…]}``;
2. the accounts at the start, each ``{"pubkey", "account"}`` with the ``getAccountInfo`` value in
   base64;
3. each produced block, in order: ``{"slot", "block"}`` with the ``getBlock`` result, transactions
   in base64 with their ``meta``. Skipped slots are absent. Within a range of recorded account
   state, ``{"slot", "accounts": [{"pubkey", "account"}…]}`` follows: what the block left changed;
4. before the first block of each later range, the accounts that differ from what was last given,
   as in 2 (``"account": null``: there is none any more), so that a session can begin there;
5. ``{"end": {"blocks": count}}``: a file that was cut off lacks it.

A ``getBlock`` answer in a file of its own is read as a bundle of one block without accounts.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from backtest_sync.local import svm
from backtest_sync.local.lines import MAX_LINE_BYTES, BundleError, read_lines
from backtest_sync.local.store import BlockStore
from backtest_sync.protocol import jsontext

if TYPE_CHECKING:
    from solders.account import Account
    from solders.pubkey import Pubkey

    from backtest_sync.local.blocks import Block

    #: Accounts by address; ``None`` where there is none (any more).
    Accounts = Mapping[str, Account | None]

__all__ = ["Bundle", "BundleError", "BundleRange", "demo_path"]

FORMAT = "backtest-sync bundle"
VERSION = 1
BLOCKS = "blocks"
ACCOUNT_STATE = "account_state"

#: Account data that a bundle may hold, in bytes: it is in memory for as long as the bundle is.
MAX_ACCOUNT_BYTES = 4 * 2**30


@frozen
class BundleRange:
    """A "bundle" of the protocol: a stretch of slots at whose start a session may begin.

    ``kind``: `BLOCKS`, or `ACCOUNT_STATE` where the recorded state can be replayed as well.
    """

    start_slot: int
    end_slot: int
    kind: str = BLOCKS

    def to_json(self) -> dict[str, Any]:
        """The form of the header."""
        return {"startSlot": self.start_slot, "endSlot": self.end_slot, "kind": self.kind}


@define(eq=False, repr=False)
class Bundle:
    """An opened bundle. Sessions share it; for one thread.

    All accounts are in memory. Blocks are read back on demand, so that of a long bundle only those
    in use are (local/store.py).
    """

    path: str
    source: str  # where it came from, in words
    first_slot: int
    last_slot: int
    ranges: tuple[BundleRange, ...]
    _store: BlockStore
    _starts: Mapping[int, Accounts]  # by start of range: what differs from the start before
    _states: Mapping[int, Accounts]  # by slot

    @classmethod
    def open(cls, bundle: str | os.PathLike[str]) -> Bundle:
        """Opens a bundle file, a file with a ``getBlock`` answer, or ``"demo"``.

        The whole file is checked. Raises BundleError with file, line and reason.
        """
        return _Reader(demo_path() if bundle == "demo" else os.fspath(bundle)).read()

    @classmethod
    def of_block(cls, answer: Any, slot: int | None = None, *, path: str = "block") -> Bundle:
        """A bundle of one block without accounts: all of it is played back.

        ``answer``: what ``getBlock`` gave, with or without its JSON-RPC envelope. It does not name
        its slot: without ``slot`` the one after its parent is taken.
        """
        value = answer.get("result", answer) if isinstance(answer, dict) else None
        if not isinstance(value, dict) or "blockhash" not in value:
            raise BundleError(path, "neither a bundle nor a getBlock answer")
        store = BlockStore(lambda _: None)
        try:
            if slot is None:
                slot = _slot(value, "parentSlot") + 1
            store.put(slot, value)
        except (ValueError, KeyError) as error:
            store.close()
            raise BundleError(path, str(error)) from error
        ranges = (BundleRange(slot, slot),)
        return cls(path, "a getBlock answer", slot, slot, ranges, store, {slot: {}}, {})

    def __repr__(self) -> str:
        return f"Bundle({self.path!r}, {self.first_slot}..={self.last_slot})"

    @property
    def slots(self) -> Sequence[int]:
        """The slots that produced a block, ascending."""
        return self._store.slots

    def block(self, slot: int) -> Block:
        """The block of one of ``slots``; KeyError for any other."""
        return self._store.get(slot)

    def blocks(self, start_slot: int, end_slot: int) -> Iterator[Block]:
        """The blocks of a slot range, both ends inclusive, in order, read as they are needed."""
        slots = self.slots
        first = bisect.bisect_left(slots, start_slot)
        last = bisect.bisect_right(slots, end_slot)
        return (self.block(slot) for slot in slots[first:last])

    def accounts_at(self, range_start: int) -> dict[str, Account]:
        """The accounts at the start of the range that begins at this slot, before its first block.

        BundleError where none begins there.
        """
        if range_start not in self._starts:
            starts = ", ".join(map(str, self._starts))
            raise BundleError(
                self.path, f"no range begins at slot {range_start}; ranges begin at {starts}"
            )
        accounts: dict[str, Account] = {}
        for start, changed in self._starts.items():
            if start > range_start:
                break
            for address, account in changed.items():
                if account is None:
                    accounts.pop(address, None)
                else:
                    accounts[address] = account
        return accounts

    def recorded_state(self, slot: int) -> Accounts:
        """What the block of a slot left changed, in a range of recorded account state."""
        return self._states.get(slot, {})

    def close(self) -> None:
        """Frees the blocks. Sessions on the bundle must be over."""
        self._store.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def demo_path() -> str:
    """Where the demo bundle is installed."""
    from importlib.resources import files

    return str(files("backtest_sync.local").joinpath("data/demo.jsonl.zst"))


@define(eq=False)
class _Reader:
    """Reads one file, line by line."""

    path: str
    line: int = 1
    account_bytes: int = 0
    ended: bool = False
    first_slot: int = 0
    last_slot: int = 0
    starts: dict[int, dict[str, Account | None]] = field(factory=dict)
    states: dict[int, dict[str, Account | None]] = field(factory=dict)
    store: BlockStore = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.store = BlockStore(self.table)

    def read(self) -> Bundle:
        try:
            return self._read()
        except (ValueError, TypeError, KeyError) as error:
            self.store.close()
            if isinstance(error, BundleError):
                raise
            reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
            raise BundleError(self.path, reason, line=self.line) from error

    def _read(self) -> Bundle:
        lines = read_lines(self.path)
        _, text = next(lines, (1, b""))
        header = _json(text)
        if not isinstance(header, dict) or "format" not in header:
            return self._single_block(text, lines)
        ranges = self._take_header(header)
        for self.line, text in lines:
            self._take(text)
        if not self.ended:
            raise ValueError("cut off: the end line is missing")
        return Bundle(
            self.path,
            str(header.get("source", "")),
            self.first_slot,
            self.last_slot,
            ranges,
            self.store,
            self.starts,
            self.states,
        )

    def _single_block(self, first: bytes, lines: Iterator[tuple[int, bytes]]) -> Bundle:
        self.store.close()  # the block gets one of its own
        parts = [first]
        size = len(first)
        for self.line, text in lines:
            size += len(text)
            if size > MAX_LINE_BYTES:
                raise ValueError("neither a bundle nor a getBlock answer")
            parts.append(text)
        answer = _json(b"\n".join(parts))
        if isinstance(answer, dict) and answer.get("error"):
            raise BundleError(self.path, f"holds an error, not a block: {answer['error']}")
        return Bundle.of_block(answer, path=self.path)

    def _take_header(self, header: dict[str, Any]) -> tuple[BundleRange, ...]:
        if header["format"] != FORMAT:
            raise ValueError(f"of another format: {header['format']!r}")
        if header["version"] != VERSION:
            raise ValueError(
                f"of version {header['version']!r}, where this release reads version {VERSION}"
            )
        self.first_slot = _slot(header, "firstSlot")
        self.last_slot = _slot(header, "lastSlot")
        ranges = tuple(
            BundleRange(_slot(value, "startSlot"), _slot(value, "endSlot"), value["kind"])
            for value in header["ranges"]
        )
        self.starts = {r.start_slot: {} for r in ranges if r.kind == BLOCKS}
        check_ranges(ranges, self.first_slot, self.last_slot)
        return ranges

    def _take(self, text: bytes) -> None:
        if self.ended:
            raise ValueError("more follows the end line")
        try:
            value = jsontext.loads(text)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from error
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        if "block" in value:
            self._take_block(value)
        elif "pubkey" in value:
            self._next_start().update([self._entry(value)])
        elif "accounts" in value:
            self._take_state(value)
        elif "end" in value:
            self._take_end(value["end"]["blocks"])
        else:
            raise ValueError("neither an account, nor a block, nor the end")

    @property
    def _last_read(self) -> int:
        """The slot of the last block read; the one before the first while there is none."""
        return self.store.slots[-1] if self.store.slots else self.first_slot - 1

    def _take_block(self, value: dict[str, Any]) -> None:
        slot = _slot(value, "slot")
        if not self._last_read < slot <= self.last_slot:
            raise ValueError(
                f"block of slot {slot} where one of {self._last_read + 1} to {self.last_slot} is due"
            )
        self.store.put(slot, value["block"])

    def _next_start(self) -> dict[str, Account | None]:
        for start, accounts in self.starts.items():
            if start > self._last_read:
                return accounts
        raise ValueError("an account after the first block of the last range")

    def _take_state(self, value: dict[str, Any]) -> None:
        slot = _slot(value, "slot")
        if slot != self._last_read:
            raise ValueError(f"account state of slot {slot} does not follow its block")
        self.states[slot] = dict(map(self._entry, value["accounts"]))

    def _entry(self, value: dict[str, Any]) -> tuple[str, Account | None]:
        address = str(svm.to_pubkey(value["pubkey"]))
        if value["account"] is None:
            return address, None
        try:
            account = svm.account_from_json(value["account"])
        except ValueError as error:
            raise ValueError(f"account {address}: {error}") from error
        self.account_bytes += len(account.data)
        if self.account_bytes > MAX_ACCOUNT_BYTES:
            raise ValueError(f"accounts of more than {MAX_ACCOUNT_BYTES} bytes")
        return address, account

    def _take_end(self, blocks: int) -> None:
        if blocks != len(self.store.slots):
            raise ValueError(f"{len(self.store.slots)} blocks, where the end line says {blocks}")
        self.ended = True

    def table(self, address: Pubkey) -> Account | None:
        """A lookup table as it was last given, for blocks recorded without loaded addresses."""
        text = str(address)
        known = [accounts[text] for accounts in self.starts.values() if text in accounts]
        return known[-1] if known else None


def _json(text: bytes) -> Any:
    try:
        return jsontext.loads(text)
    except ValueError:
        return None


def _slot(value: dict[str, Any], name: str) -> int:
    slot = value[name]
    if not isinstance(slot, int) or isinstance(slot, bool) or not 0 <= slot < 2**64:
        raise ValueError(f"{name} is {slot!r}, not a slot")
    return slot


def check_ranges(ranges: Sequence[BundleRange], first: int, last: int) -> None:
    """ValueError unless the block ranges tile the slots and the others begin where one of them does."""
    plain = [r for r in ranges if r.kind == BLOCKS]
    due = first
    for r in plain:
        if r.start_slot != due or r.end_slot < due:
            raise ValueError(f"the range that begins at slot {due} is missing or out of order")
        due = r.end_slot + 1
    if due != last + 1:
        raise ValueError(f"the ranges end at slot {due - 1}, the bundle at {last}")
    for r in ranges:
        if r.kind not in (BLOCKS, ACCOUNT_STATE):
            raise ValueError(f"a range of the unknown kind {r.kind!r}")
        if r.start_slot not in {p.start_slot for p in plain} or r.end_slot > last:
            raise ValueError(f"the {r.kind} range at slot {r.start_slot} fits no range of blocks")
