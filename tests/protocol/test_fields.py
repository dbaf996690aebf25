"""What callers may pass, and accounts in both their shapes."""

from __future__ import annotations

import base64
import pickle
from typing import Any

import base58
import pytest
from hypothesis import given, strategies as st

from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.protocol import (
    Account,
    AccountData,
    AccountModifications,
    EncodedBinary,
    fields,
    structure,
    unstructure,
)
from backtest_sync.protocol.blobs import compress
from backtest_sync.protocol.kinds import FrozenMap
from tests import strategies

SOL = "So11111111111111111111111111111111111111112"
ZERO = "11111111111111111111111111111111"


class Index:
    """As numpy's integers are."""

    def __init__(self, value: int) -> None:
        self._value = value

    def __index__(self) -> int:
        return self._value


class Bytes:
    def __bytes__(self) -> bytes:
        return b"\x01\x02"


@pytest.mark.parametrize("value", [0, 5, 2**64 - 1, Index(7)])
def test_u64(value: Any) -> None:
    assert fields.to_u64(value, "slot") == value.__index__()


@pytest.mark.parametrize("value", [-1, 2**64, 1.0, True, None, "5", b"5", Index(-1), float("nan")])
def test_no_u64(value: Any) -> None:
    with pytest.raises(InvalidParamsError, match=r"^slot: expected "):
        fields.to_u64(value, "slot")


@given(st.binary(min_size=32, max_size=32))
def test_addresses_of_all_bytes(data: bytes) -> None:
    text = base58.b58encode(data).decode()
    for form in (text, data, bytearray(data), memoryview(data)):
        assert fields.to_address(form, "owner") == text
    assert fields.address_bytes(text) == data
    assert fields.b58decode(text) == data
    assert fields.b58encode(data) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        SOL + "\n",
        " " + SOL,
        SOL[:-1] + "0",
        SOL[:-1] + "l",
        "1" * 31,
        "1" * 33,
        "z" * 44,
        SOL[:-1],
        "é" * 40,
        b"",
        bytes(31),
        bytes(33),
        None,
        5,
        1.5,
        [],
        object(),
    ],
)
def test_no_address(value: Any) -> None:
    with pytest.raises(InvalidParamsError, match=r"^owner: "):
        fields.to_address(value, "owner")


@pytest.mark.parametrize("text", [SOL + " ", SOL + "\n", "0", "é"])
def test_base58_is_strict(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        fields.b58decode(text)


@pytest.mark.parametrize(
    "value",
    [
        b"\x01\x02",
        "AQI=",
        bytearray(b"\x01\x02"),
        memoryview(b"\x01\x02"),
        Bytes(),
        EncodedBinary("AQI="),
    ],
)
def test_bytes_of_all_forms(value: Any) -> None:
    assert fields.to_bytes(value, "data") == b"\x01\x02"
    assert fields.to_base64(value, "data") == "AQI="
    assert fields.to_transaction(value, "tx") == "AQI="


@pytest.mark.parametrize(
    "value", ["AQ", "A===", "AQI", "AQ==\n", "-_-_", "AQI=AQI=", "é", "!", 5, None, [1], 1.5]
)
def test_no_bytes(value: Any) -> None:
    with pytest.raises(InvalidParamsError, match=r"^data: "):
        fields.to_bytes(value, "data")


@pytest.mark.parametrize("value", [5, None, b"x", "\ud800", "a\udfff"])
def test_no_text(value: Any) -> None:
    with pytest.raises(InvalidParamsError, match=r"^label: "):
        fields.to_text(value, "label")


def test_messages_are_short() -> None:
    endless: list[Any] = []
    for _ in range(100_000):
        endless = [endless]
    for value in ("x" * 10_000, b"x" * 10_000, ["x"] * 10_000, 10**10_000, [10**10_000], endless):
        with pytest.raises(InvalidParamsError) as refused:
            fields.to_u64(value, "slot")
        assert len(str(refused.value)) < 300


# --- accounts


def test_an_account_is_made_of_bytes() -> None:
    account = AccountData(b"\x01\x02\x03", 5, SOL)
    assert account.data == EncodedBinary("AQID")
    assert account.bytes == b"\x01\x02\x03"
    assert account.space == 3
    assert account == AccountData("AQID", 5, base58.b58decode(SOL), False, 3)
    assert unstructure(account) == {
        "data": {"data": "AQID", "encoding": "base64"},
        "executable": False,
        "lamports": 5,
        "owner": SOL,
        "space": 3,
    }


@given(st.binary(max_size=50))
def test_the_length_of_encoded_bytes(data: bytes) -> None:
    encoded = EncodedBinary(data)
    assert len(encoded) == len(data)
    assert encoded.bytes == bytes(encoded) == data


def test_data_in_the_form_of_a_pair_is_read_too() -> None:
    value = {"data": ["AQID", "base64"], "executable": False, "lamports": 5, "owner": SOL}
    account = structure(AccountData, {**value, "space": 9})
    assert account == AccountData(b"\x01\x02\x03", 5, SOL, space=9)


def test_data_that_is_no_base64_is_kept_and_refused_where_it_is_asked_for() -> None:
    encoded = structure(EncodedBinary, {"data": "!!!", "encoding": "base64"})
    assert unstructure(encoded)["data"] == "!!!"
    with pytest.raises(DeserializeError, match="not valid base64"):
        _ = encoded.bytes


@pytest.mark.parametrize(
    "make",
    [
        lambda: AccountData("!", 1, SOL),
        lambda: AccountData(b"", -1, SOL),
        lambda: AccountData(b"", 1, "x"),
        lambda: AccountData(b"", 1, SOL, executable=1),
        lambda: AccountData(b"", 1, SOL, space=-1),
        lambda: EncodedBinary(b"", "hex"),
        lambda: AccountModifications({SOL: b""}),
        lambda: AccountModifications({"x": AccountData(b"", 1, SOL)}),
    ],
)
def test_wrong_accounts_are_refused(make: Any) -> None:
    with pytest.raises(InvalidParamsError):
        make()


def test_modifications_are_a_mapping() -> None:
    one, two = AccountData(b"", 1, SOL), AccountData(b"", 2, SOL)
    made = AccountModifications({SOL: one, ZERO: two})
    assert list(made) == [ZERO, SOL]
    assert made == {ZERO: two, SOL: one}
    assert made[SOL] is one
    assert fields.to_modifications(made, "x") is made
    assert pickle.loads(pickle.dumps(made)) == made
    assert hash(made) == hash(AccountModifications({ZERO: two, SOL: one}))
    assert repr(made) == "AccountModifications(2 accounts)"
    with pytest.raises(TypeError):
        made[SOL] = two  # type: ignore[index]


def test_frozen_maps_compare_with_any_mapping() -> None:
    made = FrozenMap({"a": 1})
    assert made == {"a": 1} == made
    assert made != {"a": 2}
    assert made != [("a", 1)]
    assert repr(made) == "{'a': 1}"


# --- accounts as an RPC node shows them


def _shown(**changes: Any) -> dict[str, Any]:
    value = {
        "data": ["AQID", "base64"],
        "executable": True,
        "lamports": 5,
        "owner": SOL,
        "rentEpoch": 18446744073709551615,
        "space": 3,
    }
    return {key: item for key, item in {**value, **changes}.items() if item is not ...}


def test_an_account_that_a_node_shows() -> None:
    account = Account.from_ui(_shown())
    assert account.data == b"\x01\x02\x03"
    assert (account.lamports, account.owner, account.executable) == (5, SOL, True)
    assert (account.space, account.rent_epoch) == (3, 2**64 - 1)
    assert account == Account(b"\x01\x02\x03", 5, SOL, True, 3, 2**64 - 1)
    assert hash(account) == hash(Account.from_ui(_shown()))
    assert pickle.loads(pickle.dumps(account)) == account
    assert account.to_account_data() == AccountData(b"\x01\x02\x03", 5, SOL, True)
    assert repr(account) == f"Account(5 lamports, 3 bytes, owner='{SOL}')"


def test_compressed_data_is_decoded() -> None:
    data = bytes(100_000)
    packed = base64.b64encode(compress(data)).decode()
    account = Account.from_ui(_shown(data=[packed, "base64+zstd"], space=...))
    assert account.data == data
    assert account.space == 100_000


def test_an_older_node_leaves_out_what_is_newer() -> None:
    account = Account.from_ui(_shown(space=..., rentEpoch=...))
    assert (account.space, account.rent_epoch) == (3, 0)
    # a JSON writer that knows floats alone turns the largest epoch into one
    assert Account.from_ui(_shown(rentEpoch=1.8446744073709552e19)).rent_epoch == 0


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        _shown(data=...),
        _shown(lamports=...),
        _shown(owner=...),
        _shown(executable=...),
        _shown(data="AQID"),
        _shown(data=["AQID"]),
        _shown(data=["AQID", "base58"]),
        _shown(data=["AQID", "base64", 1]),
        _shown(data=[5, "base64"]),
        _shown(data={"program": "spl-token", "parsed": {}}),
        _shown(data=["AQ", "base64"], space=...),
        _shown(lamports=5.0),
        _shown(lamports=-1),
        _shown(lamports=True),
        _shown(owner=5),
        _shown(executable=1),
        _shown(space="3"),
        _shown(space=-1),
    ],
)
def test_what_is_no_account_is_refused(value: Any) -> None:
    with pytest.raises(DeserializeError):
        Account.from_ui(value)


def test_data_is_looked_at_when_it_is_asked_for() -> None:
    account = Account.from_ui(_shown(data=["!!!", "base64"]))
    with pytest.raises(DeserializeError, match="bad account data"):
        _ = account.data
    bomb = base64.b64encode(compress(bytes(2**25))).decode()
    with pytest.raises(DeserializeError, match="holds more than"):
        _ = Account.from_ui(_shown(data=[bomb, "base64+zstd"])).data


@given(strategies.accounts)
def test_modifications_and_what_a_node_shows_agree(account: AccountData) -> None:
    shown = unstructure(account)
    shown["data"] = [shown["data"]["data"], shown["data"]["encoding"]]
    assert Account.from_ui(shown).to_account_data() == account


@pytest.mark.parametrize(
    "text", ["QR==", "QUJ=", "AAAAQR==", "QQ=", "QQ", "==", "Q===", "QQ==\n", "-_=="]
)
def test_base64_that_the_service_refuses_is_refused(text: str) -> None:
    with pytest.raises(InvalidParamsError, match="is not valid base64"):
        fields.to_bytes(text, "data")
