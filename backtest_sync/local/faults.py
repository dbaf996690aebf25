"""Faults on demand: what can go wrong between a client and the service, when a test says so.

By call (``simulator.faults.drop(after=20)``) or on a seeded schedule (``chaos``). Counted in
messages, not in time, so that a run with faults can be repeated.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from attrs import define

from backtest_sync.errors import InvalidParamsError

if TYPE_CHECKING:
    from backtest_sync.local.wire import Wire

#: The close code and reason of a manager's restart (protocol/managed.md §11).
HANDOFF_CODE = 1012
HANDOFF_REASON = "management handoff"

Channel = Literal["control", "subscriptions", "any"]
How = Literal["reset", "end", "close"]
Refusal = Literal["reset", "cut", "status"]
Effect = Callable[["Wire", bytes], Awaitable[None]]

_CHANNELS = ("control", "subscriptions", "any")
_REFUSALS = ("reset", "cut", "status")
_KINDS = ("reset", "end", "close", "cut", "freeze", "delay")


@define(eq=False)
class _Planned:
    """An effect that comes with the message after ``left`` more messages of its channel."""

    channel: Channel
    left: int
    effect: Effect
    repeat: int = 1
    by_schedule: bool = False

    def wants(self, wire: Wire) -> bool:
        return self.channel in ("any", wire.channel)


class Faults:
    """What is planned to go wrong. All calls belong on the server's loop; see FaultControls."""

    def __init__(self) -> None:
        #: Whether anything is planned at all: the senders' fast check.
        self.armed = False
        self._planned: list[_Planned] = []
        self._wires: set[Wire] = set()
        self._refusals: list[Refusal] = []
        self._busy = 0
        self._chaos: _Chaos | None = None
        self.fired = 0

    # --- planning --------------------------------------------------------------------------------
    def plan(
        self,
        effect: Effect,
        *,
        channel: Channel,
        after: int,
        repeat: int = 1,
        by_schedule: bool = False,
    ) -> None:
        """Applies ``effect`` with the message after ``after`` more, ``repeat`` times."""
        _check_channel(channel)
        _check_least("after", after, 0)
        _check_least("messages", repeat, 1)
        self._planned.append(_Planned(channel, after, effect, repeat, by_schedule))
        self.armed = True

    def open_wires(self, channel: Channel) -> list[Wire]:
        """The connections that are open now, of one kind or of any."""
        _check_channel(channel)
        return [wire for wire in self._wires if channel in ("any", wire.channel)]

    def refuse(self, count: int, how: Refusal) -> None:
        """Refuses the next ``count`` connects."""
        if how not in _REFUSALS:
            raise InvalidParamsError(f"how: {how!r} is not one of {', '.join(_REFUSALS)}")
        _check_least("connects", count, 0)
        self._refusals.extend([how] * count)

    def busy(self, count: int) -> None:
        """Answers the next ``count`` attaches with ``sessionOwnershipBusy``."""
        _check_least("attaches", count, 0)
        self._busy += count

    def unleash(self, seed: int) -> None:
        """Starts the seeded schedule, in place of all that was planned."""
        self.clear()
        self._chaos = _Chaos(self, seed)
        self._chaos.plan_next()

    def clear(self) -> None:
        """Forgets everything planned, the schedule included, and thaws what is frozen."""
        self._planned.clear()
        self._refusals.clear()
        self._busy = 0
        self._chaos = None
        self.armed = False
        for wire in self._wires:
            wire.thaw()

    # --- what the server asks --------------------------------------------------------------------
    def opened(self, wire: Wire) -> None:
        """A connection was accepted."""
        self._wires.add(wire)

    def closed(self, wire: Wire) -> None:
        """A connection is over."""
        self._wires.discard(wire)

    def next_refusal(self) -> Refusal | None:
        """How this connect is to be refused, if it is."""
        return self._refusals.pop(0) if self._refusals else None

    def is_busy(self) -> bool:
        """Whether this attach is to be told that the session's ownership is busy."""
        if self._busy:
            self._busy -= 1
            return True
        return False

    async def passing(self, wire: Wire, data: bytes) -> None:
        """A message is about to be written: counts it and applies what is due."""
        for planned in list(self._planned):
            if not planned.wants(wire):
                continue
            if planned.left > 0:
                planned.left -= 1
                continue
            planned.repeat -= 1
            if planned.repeat <= 0:
                self._planned.remove(planned)
            if planned.by_schedule and self._chaos is not None:
                self._chaos.plan_next()
            await self.apply(planned.effect, wire, data)
        self.armed = bool(self._planned)

    async def apply(self, effect: Effect, wire: Wire, data: bytes = b"") -> None:
        """Applies an effect to a connection, now."""
        self.fired += 1
        await effect(wire, data)


def _check_channel(channel: str) -> None:
    if channel not in _CHANNELS:
        raise InvalidParamsError(f"channel: {channel!r} is not one of {', '.join(_CHANNELS)}")


def _check_least(name: str, value: float, least: int) -> None:
    if not value >= least:
        raise InvalidParamsError(f"{name}: {value} is not at least {least}")


# --- effects ---------------------------------------------------------------------------------------
def dropping(how: How, code: int = HANDOFF_CODE, reason: str = HANDOFF_REASON) -> Effect:
    """Loses the connection: a TCP reset, its plain end, or a close frame."""
    if how not in ("reset", "end", "close"):
        raise InvalidParamsError(f"how: {how!r} is not one of reset, end, close")
    if how == "close" and not 1000 <= code < 5000:
        raise InvalidParamsError(f"code: {code} is no close code: give one of 1000 to 4999")

    async def effect(wire: Wire, _data: bytes) -> None:
        if how == "reset":
            wire.reset()
        elif how == "end":
            wire.end()
        else:
            await wire.close(code, reason)

    return effect


async def cutting(wire: Wire, data: bytes) -> None:
    """Writes the first half of a frame and ends the connection."""
    wire.write_raw(data[: len(data) // 2])
    wire.end()


def freezing(seconds: float | None) -> Effect:
    """Stops reading and writing, for good or for a while."""
    if seconds is not None:
        _check_least("seconds", seconds, 0)

    async def effect(wire: Wire, _data: bytes) -> None:
        wire.freeze()
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, wire.thaw)

    return effect


def delaying(seconds: float) -> Effect:
    """Holds the message back, and with it all that follow on the connection."""
    _check_least("seconds", seconds, 0)

    async def effect(_wire: Wire, _data: bytes) -> None:
        await asyncio.sleep(seconds)

    return effect


class _Chaos:
    """The seeded schedule: one fault after another, each some messages after the last."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self._faults = faults
        self._random = random.Random(seed)  # noqa: S311 - a repeatable schedule, no secret

    def plan_next(self) -> None:
        kind = self._random.choice(_KINDS)
        after = self._random.randint(5, 120)
        if self._random.random() < 0.2:
            self._faults.refuse(1, self._random.choice(("reset", "cut", "status")))
        if self._random.random() < 0.1:
            self._faults.busy(1)
        effects: dict[str, Effect] = {
            "reset": dropping("reset"),
            "end": dropping("end"),
            "close": dropping("close"),
            "cut": cutting,
            "freeze": freezing(0.05),
            "delay": delaying(0.02),
        }
        self._faults.plan(effects[kind], channel="any", after=after, by_schedule=True)
