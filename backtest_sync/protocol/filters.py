"""What a session should announce ahead of time (protocol/control.md §4.8)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import InvalidParamsError
from backtest_sync.protocol.fields import WireEnum
from backtest_sync.protocol.kinds import ADDRESS, ADDRESS_SET, choice
from backtest_sync.protocol.shape import (
    Kind,
    Value,
    custom,
    expect_object,
    member,
    value_class,
    wire,
)

if TYPE_CHECKING:
    from backtest_sync.protocol.fields import AddressLike


class DiscoveryKind(WireEnum):
    """What a discovery filter looks for."""

    PROGRAM_EXECUTED = "programExecuted"
    ORACLE_UPDATE = "oracleUpdate"


_KIND = choice(DiscoveryKind)


@value_class
class DiscoveryFilter(Value):
    """Which batches are announced: made by :meth:`program_executed` or :meth:`oracle_update`.

    ``programs`` holds the one program of the first kind. Both are sets, in the order of bytes.
    """

    kind: DiscoveryKind = wire(_KIND)
    programs: tuple[str, ...] = wire(ADDRESS_SET, default=())
    accounts: tuple[str, ...] = wire(ADDRESS_SET, default=(), omit=())

    if TYPE_CHECKING:

        def __init__(
            self,
            kind: DiscoveryKind | str,
            programs: Iterable[AddressLike] = (),
            accounts: Iterable[AddressLike] = (),
        ) -> None: ...

    @classmethod
    def program_executed(cls, program: AddressLike) -> DiscoveryFilter:
        """Batches in which a transaction invokes ``program``, directly or by another program."""
        return cls(DiscoveryKind.PROGRAM_EXECUTED, (program,))

    @classmethod
    def oracle_update(
        cls, programs: Iterable[AddressLike], accounts: Iterable[AddressLike] = ()
    ) -> DiscoveryFilter:
        """Batches with a transaction that invokes one of ``programs`` and moves no tokens.

        With ``accounts`` it must also be able to write one of these.
        """
        return cls(DiscoveryKind.ORACLE_UPDATE, programs, accounts)

    def _check(self) -> None:
        if self.kind is DiscoveryKind.PROGRAM_EXECUTED and (
            len(self.programs) != 1 or self.accounts
        ):
            raise InvalidParamsError("programs: programExecuted names one program and no accounts")


_KEYS = frozenset(("kind", "value"))
_ORACLE_KEYS = frozenset(("programs", "accounts"))


def _read(json: Any) -> DiscoveryFilter:
    expect_object(json, _KEYS)
    kind = member(json, "kind", _KIND)
    if kind is DiscoveryKind.PROGRAM_EXECUTED:
        return DiscoveryFilter(kind, (member(json, "value", ADDRESS),))
    programs, accounts = member(json, "value", _ORACLE)
    return DiscoveryFilter(kind, programs, accounts)


def _read_oracle(json: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    expect_object(json, _ORACLE_KEYS)
    return member(json, "programs", ADDRESS_SET), member(json, "accounts", ADDRESS_SET, ())


def _write(value: DiscoveryFilter) -> Any:
    if value.kind is DiscoveryKind.PROGRAM_EXECUTED:
        return {"kind": value.kind.value, "value": value.programs[0]}
    oracle: dict[str, Any] = {"programs": list(value.programs)}
    if value.accounts:
        oracle["accounts"] = list(value.accounts)
    return {"kind": value.kind.value, "value": oracle}


_ORACLE = Kind(lambda value, _: value, _read_oracle)

#: A discovery filter.
FILTER = custom(DiscoveryFilter, _read, _write)
