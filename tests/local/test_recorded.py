"""The binary record of a discovered transaction, read back field by field."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from solders.transaction import VersionedTransaction

from backtest_sync.local.blocks import parse_block
from backtest_sync.local.bundle import Bundle
from backtest_sync.local.recorded import recorded_transaction
from backtest_sync.protocol.fields import b58encode
from tests.local import worlds


class Reader:
    """Reads the record as protocol/control.md §5 lists it."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, layout: str) -> Any:
        (value,) = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return value

    def option(self, read: Callable[[], Any]) -> Any:
        tag = self.take("B")
        assert tag in (0, 1)
        return read() if tag else None

    def items(self, read: Callable[[], Any]) -> list[Any]:
        return [read() for _ in range(self.take("Q"))]

    def raw(self, size: int) -> bytes:
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        return self.raw(self.take("Q")).decode()

    def short(self) -> bytes:
        size = shift = 0
        while True:
            byte = self.take("B")
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                return self.raw(size)
            shift += 7

    def token_balance(self) -> dict[str, Any]:
        return {
            "accountIndex": self.take("B"),
            "mint": self.text(),
            "uiTokenAmount": {
                "uiAmount": self.option(lambda: self.take("d")),
                "decimals": self.take("B"),
                "amount": self.text(),
                "uiAmountString": self.text(),
            },
            "owner": self.text(),
            "programId": self.text(),
        }

    def balances(self) -> dict[str, Any]:
        return {
            "preBalances": self.items(lambda: self.take("Q")),
            "postBalances": self.items(lambda: self.take("Q")),
            "preTokenBalances": self.option(lambda: self.items(self.token_balance)),
            "postTokenBalances": self.option(lambda: self.items(self.token_balance)),
        }

    def inner(self) -> dict[str, Any]:
        return {
            "index": self.take("B"),
            "instructions": self.items(
                lambda: {
                    "programIdIndex": self.take("B"),
                    "accounts": list(self.short()),
                    "data": b58encode(self.short()),
                    "stackHeight": self.option(lambda: self.take("I")),
                }
            ),
        }


def after_transaction(transaction: Any) -> Reader:
    record = recorded_transaction(transaction)
    assert record.startswith(transaction.raw)
    assert bytes(VersionedTransaction.from_bytes(transaction.raw)) == transaction.raw
    reader = Reader(record)
    reader.at = len(transaction.raw)
    return reader


def test_what_the_bundle_recorded_is_all_there() -> None:
    bundle = Bundle.open("demo")
    seen = 0
    for transaction in bundle.block(bundle.first_slot).transactions:
        meta = transaction.meta
        reader = after_transaction(transaction)
        error = reader.option(lambda at=reader: at.take("I"))
        assert (error is None) == (meta["err"] is None)
        if error is not None:
            continue
        found = reader.option(reader.balances)
        assert found == {key: meta[key] for key in found}
        assert reader.option(lambda at=reader: at.items(at.text)) == meta["logMessages"]
        inner = reader.option(lambda at=reader: at.items(at.inner))
        assert inner == [
            {**group, "instructions": [{"stackHeight": None, **i} for i in group["instructions"]]}
            for group in meta["innerInstructions"]
        ]
        assert reader.at == len(reader.data)
        seen += 1
    assert seen > 5
    bundle.close()


@pytest.mark.parametrize(
    ("err", "encoded"),
    [
        ("AccountNotFound", "0102000000"),
        ({"InstructionError": [3, {"Custom": 6001}]}, "0108000000031900000071170000"),
        ({"InstructionError": [0, "InvalidArgument"]}, "01080000000001000000"),
        ({"InstructionError": [0, "BorshIoError"]}, "0108000000002c000000"),
        ({"DuplicateInstruction": 2}, "011e00000002"),
        ({"InsufficientFundsForRent": {"account_index": 4}}, "011f00000004"),
    ],
)
def test_errors_are_tagged_with_their_place_in_solanas_list(err: Any, encoded: str) -> None:
    meta = worlds.meta([10, 0], [5, 0], err=err)
    entry = worlds.entry(worlds.payment("ann", "bob", 1), meta)
    entry["meta"]["preBalances"] = entry["meta"]["postBalances"] = [1, 1, 1]
    block = parse_block(1000, worlds.block(1000, [entry]), lambda _: None)
    reader = after_transaction(block.transactions[0])
    assert reader.raw(len(encoded) // 2).hex() == encoded


def test_a_transaction_without_a_record_has_only_itself() -> None:
    entry = worlds.entry(worlds.payment("ann", "bob", 1), None)
    block = parse_block(1000, worlds.block(1000, [entry]), lambda _: None)
    reader = after_transaction(block.transactions[0])
    assert reader.data[reader.at :] == b"\0\0\0\0"
