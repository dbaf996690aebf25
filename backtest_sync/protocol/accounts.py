"""Accounts: the shape of modifications, and the shape that an RPC node shows."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from backtest_sync.errors import DeserializeError, InvalidParamsError
from backtest_sync.protocol import blobs
from backtest_sync.protocol.fields import (
    U64_MAX,
    address_bytes,
    b64decode,
    shown,
    to_address,
    to_base64,
)
from backtest_sync.protocol.jsontext import json_shown
from backtest_sync.protocol.kinds import ADDRESS, BOOL, ENCODING, TEXT, U64, FrozenMap, map_of
from backtest_sync.protocol.shape import (
    Kind,
    Mismatch,
    Value,
    custom,
    described,
    shape_of,
    struct,
    value_class,
    wire,
)

if TYPE_CHECKING:
    from backtest_sync.protocol.fields import AddressLike, BinaryLike

#: The most that an account's compressed data may decompress to, bytes (Solana's own bound: 10 MiB).
MAX_ACCOUNT_BYTES = 16 * 2**20


@value_class
class EncodedBinary(Value):
    """Bytes as the protocol carries them: base64 text (protocol/control.md §3.3).

    What a caller passes is checked at once; what was read is kept as it came, and ``bytes`` raises
    ``DeserializeError`` where it is no base64.
    """

    data: str = wire(Kind(to_base64, TEXT.read))
    encoding: str = wire(ENCODING, default="base64", required=True)

    if TYPE_CHECKING:

        def __init__(self, data: BinaryLike, encoding: str = "base64") -> None: ...

    @property
    def bytes(self) -> builtins.bytes:
        """The bytes themselves."""
        try:
            return b64decode(self.data)
        except ValueError as error:
            raise DeserializeError(f"not valid base64: {error}", self.data) from error

    def __bytes__(self) -> builtins.bytes:
        return self.bytes

    def __len__(self) -> int:
        """How many bytes there are."""
        text = self.data
        return len(text) * 3 // 4 - text[-2:].count("=")


def _read_encoded(json: Any) -> Any:
    # a pair in this order is the same record (protocol/programs.md §2)
    if isinstance(json, list) and len(json) == 2:
        json = {"data": json[0], "encoding": json[1]}
    return shape_of(EncodedBinary).kind.read(json)


def _write_encoded(value: EncodedBinary) -> Any:
    return {"data": value.data, "encoding": value.encoding}


custom(EncodedBinary, _read_encoded, _write_encoded)


def _accept_binary(value: Any, field: str) -> EncodedBinary:
    if isinstance(value, EncodedBinary):
        return value
    # read rather than made: the text was encoded or checked right here, and can be large
    encoded: EncodedBinary = _read_encoded({"data": to_base64(value, field), "encoding": "base64"})
    return encoded


#: Bytes of any form, stored as an ``EncodedBinary``.
BINARY = Kind(_accept_binary, _read_encoded, _write_encoded)


@value_class
class AccountData(Value):
    """The whole state of an account, to be written over what is there (protocol/programs.md §2).

    ``data``: bytes, base64 text or an ``EncodedBinary``; ``lamports`` in lamports; ``space`` in
    bytes, by default the length of the data.
    """

    data: EncodedBinary = wire(BINARY)
    lamports: int = wire(U64)
    owner: str = wire(ADDRESS)
    executable: bool = wire(BOOL, default=False, required=True)
    space: int = wire(U64, default=None, required=True)

    if TYPE_CHECKING:

        def __init__(
            self,
            data: BinaryLike,
            lamports: int,
            owner: AddressLike,
            executable: bool = False,
            space: int | None = None,
        ) -> None: ...

    def __attrs_post_init__(self) -> None:
        if self.space is None:
            data = _accept_binary(self.data, "data")
            object.__setattr__(self, "data", data)
            object.__setattr__(self, "space", len(data))
        super().__attrs_post_init__()

    @property
    def bytes(self) -> builtins.bytes:
        """The account's data."""
        return self.data.bytes


class AccountModifications(FrozenMap[str, AccountData]):
    """Accounts by address, in the order of the addresses' bytes.

    Made from any mapping of addresses to ``AccountData``.
    """

    __slots__ = ()

    def __init__(
        self,
        accounts: Mapping[Any, AccountData] | Iterable[tuple[Any, AccountData]] = (),
        *,
        field: str = "accounts",
    ) -> None:
        checked = {}
        try:
            items = dict(accounts).items()
        except (TypeError, ValueError) as error:
            raise InvalidParamsError(
                f"{field}: expected a mapping of address to AccountData, got {shown(accounts)}"
            ) from error
        for key, account in items:
            if not isinstance(account, AccountData):
                raise InvalidParamsError(
                    f"{field}[{shown(key)}]: expected AccountData, got {shown(account)}"
                )
            checked[to_address(key, f"{field} key")] = account
        super().__init__({key: checked[key] for key in sorted(checked, key=address_bytes)})

    def __repr__(self) -> str:
        count = len(self)
        return f"AccountModifications({count} account{'' if count == 1 else 's'})"


def _accept_modifications(value: Any, field: str) -> AccountModifications:
    if isinstance(value, AccountModifications):
        return value
    if not isinstance(value, Mapping):
        raise InvalidParamsError(
            f"{field}: expected a mapping of address to AccountData, got {shown(value)}"
        )
    return AccountModifications(value, field=field)


_ACCOUNTS = map_of(struct(AccountData), key=ADDRESS)
#: Accounts by address.
MODIFICATIONS = Kind(
    _accept_modifications,
    lambda json: AccountModifications(_ACCOUNTS.read(json), field="account"),
    _ACCOUNTS.write,
)


def _data_of(content: bytes | tuple[str, str]) -> bytes:
    if not isinstance(content, tuple):
        return content
    text, encoding = content
    try:
        data = b64decode(text)
        return data if encoding == "base64" else blobs.decompress(data, MAX_ACCOUNT_BYTES)
    except ValueError as error:
        raise DeserializeError(f"bad account data: {error}", text) from error


@attrs.frozen(repr=False)
class Account:
    """An account as an RPC node shows it: ``lamports``, ``owner``, ``executable``, ``space``.

    Equal by value. ``data`` is decoded when it is first asked for.
    """

    _content: bytes | tuple[str, str] = attrs.field(alias="data", eq=_data_of)
    lamports: int
    owner: str
    executable: bool
    space: int
    rent_epoch: int = 0

    @classmethod
    def from_ui(cls, value: Any) -> Account:
        """The account of a JSON value in the form that ``getAccountInfo`` gives.

        Data in base64, plain or zstd-compressed; anything else is a ``DeserializeError``.
        """
        try:
            return cls._read(value)
        except Mismatch as error:
            raise DeserializeError(error.reason, json_shown(value)) from None

    @classmethod
    def _read(cls, value: Any) -> Account:
        if not isinstance(value, dict):
            raise Mismatch(f"an account is an object, got {described(value)}")
        try:
            content, lamports, owner, executable = (
                value["data"],
                value["lamports"],
                value["owner"],
                value["executable"],
            )
        except KeyError as error:
            raise Mismatch(f"the account lacks {error}") from None
        if (
            not isinstance(content, list)
            or len(content) != 2
            or not isinstance(content[0], str)
            or content[1] not in ("base64", "base64+zstd")
        ):
            raise Mismatch("unsupported ui-account data encoding, expected base64")
        if type(lamports) is not int or not 0 <= lamports <= U64_MAX:
            raise Mismatch(f"the account's lamports are no u64: {described(lamports)}")
        if not isinstance(owner, str) or not isinstance(executable, bool):
            raise Mismatch("the account's owner is no address, or executable no boolean")
        text, encoding = content
        space = value.get("space")
        if space is None:
            space = len(_data_of((text, encoding)))
        elif type(space) is not int or not 0 <= space <= U64_MAX:
            raise Mismatch(f"the account's space is no u64: {described(space)}")
        rent_epoch = value.get("rentEpoch")
        return cls(
            (text, encoding),
            lamports,
            owner,
            executable,
            space,
            rent_epoch if type(rent_epoch) is int else 0,
        )

    @property
    def data(self) -> bytes:
        """The account's data. ``DeserializeError`` where what the server sent can't be decoded."""
        content = self._content
        if isinstance(content, tuple):
            content = _data_of(content)
            object.__setattr__(self, "_content", content)
        return content

    def to_account_data(self) -> AccountData:
        """The same account in the form of a modification."""
        return AccountData(self.data, self.lamports, self.owner, self.executable, self.space)

    def __repr__(self) -> str:
        return f"Account({self.lamports} lamports, {self.space} bytes, owner={self.owner!r})"
