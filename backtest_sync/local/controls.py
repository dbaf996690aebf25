"""`simulator.faults`: the calls that make things go wrong, from any thread or process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backtest_sync.errors import InvalidParamsError

if TYPE_CHECKING:
    from backtest_sync.local.faults import Channel, How, Refusal
    from backtest_sync.local.server import Server


class FaultControls:
    """What can be made to go wrong with a simulator.

    ``channel``: connections to act on, ``"control"``, ``"subscriptions"`` or ``"any"``. ``after``:
    how many more messages the server sends on them first; 0 acts at once on those that are open.
    Every call returns when the fault is planned or done.
    """

    def __init__(self, call: Callable[[str, dict[str, Any]], Any]) -> None:
        self._call = call

    def drop(
        self,
        how: How = "reset",
        *,
        channel: Channel = "control",
        after: int = 0,
        code: int = 1012,
        reason: str = "management handoff",
    ) -> None:
        """Loses connections: ``"reset"``, ``"end"`` (no close frame) or ``"close"`` with a code.

        A control connection that is closed with 1012 leaves its session paused until it is attached
        to and resumed, as a restart of the service's manager does.
        """
        self._call(
            "drop",
            {"how": how, "channel": channel, "after": after, "code": code, "reason": reason},
        )

    def cut(self, *, channel: Channel = "control", after: int = 0) -> None:
        """Ends a connection in the middle of a frame: that of the message after ``after`` more."""
        self._call("cut", {"channel": channel, "after": after})

    def freeze(
        self, seconds: float | None = None, *, channel: Channel = "control", after: int = 0
    ) -> None:
        """Neither reads nor writes on connections; for good without ``seconds``, until ``thaw``."""
        self._call("freeze", {"seconds": seconds, "channel": channel, "after": after})

    def thaw(self) -> None:
        """Lets frozen connections go on."""
        self._call("thaw", {})

    def delay(
        self,
        seconds: float,
        *,
        messages: int = 1,
        channel: Channel = "control",
        after: int = 0,
    ) -> None:
        """Holds each of the next messages back for so long."""
        self._call(
            "delay",
            {"seconds": seconds, "messages": messages, "channel": channel, "after": after},
        )

    def refuse(self, connects: int = 1, how: Refusal = "reset") -> None:
        """Refuses the next WebSocket connects: ``"reset"``, ``"cut"`` in the answer's head, or
        ``"status"`` 503."""
        self._call("refuse", {"connects": connects, "how": how})

    def busy(self, attaches: int = 1) -> None:
        """Answers the next attaches with ``sessionOwnershipBusy``."""
        self._call("busy", {"attaches": attaches})

    def forget(self, session_id: str) -> bool:
        """Ends a session as if it had never been; whether there was one."""
        return bool(self._call("forget", {"session_id": session_id}))

    def chaos(self, seed: int) -> None:
        """Starts a schedule of faults of all kinds; the same seed gives the same schedule."""
        self._call("chaos", {"seed": seed})

    def clear(self) -> None:
        """Forgets what is planned, the schedule included."""
        self._call("clear", {})

    @property
    def fired(self) -> int:
        """How many faults have happened so far."""
        return int(self._call("fired", {}))


async def apply_fault(server: Server, name: str, arguments: dict[str, Any]) -> Any:
    """Does what a call of `FaultControls` says; for the server's loop."""
    from backtest_sync.local import faults as kinds

    faults = server.faults
    effects: dict[str, Callable[..., kinds.Effect]] = {
        "drop": lambda how, code, reason: kinds.dropping(how, code, reason),
        "cut": lambda: kinds.cutting,
        "freeze": kinds.freezing,
        "delay": kinds.delaying,
    }
    if name in effects:
        channel, after = arguments.pop("channel"), arguments.pop("after")
        repeat = arguments.pop("messages", 1)
        effect = effects[name](**arguments)
        if after or name in ("cut", "delay"):  # these need a message to act on
            faults.plan(effect, channel=channel, after=after, repeat=repeat)
            return None
        for wire in faults.open_wires(channel):
            await faults.apply(effect, wire)
        return None
    if name == "thaw":
        for wire in faults.open_wires("any"):
            wire.thaw()
    elif name == "refuse":
        faults.refuse(arguments["connects"], arguments["how"])
    elif name == "busy":
        faults.busy(arguments["attaches"])
    elif name == "forget":
        return server.registry.forget(arguments["session_id"])
    elif name == "chaos":
        faults.unleash(arguments["seed"])
    elif name == "clear":
        faults.clear()
    elif name == "fired":
        return faults.fired
    else:
        raise InvalidParamsError(f"{name}: no such fault")
    return None
