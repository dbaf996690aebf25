"""What the endpoint of one session serves: JSON-RPC, and each stream of `backtest_sync.subscriptions`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from backtest_sync import subscriptions
from backtest_sync.limits import GRACEFUL_CLOSE_LIMIT, Deadline, check_timeout
from backtest_sync.subscription import Subscription, drain
from backtest_sync.subscriptions import LinkOptions, StreamOptions

if TYPE_CHECKING:
    import ssl
    from os import PathLike

    from typing_extensions import Unpack

    from backtest_sync.protocol import AccountData
    from backtest_sync.protocol.fields import AddressLike, ModificationsLike
    from backtest_sync.protocol.notifications import (
        AccountDiffNotification,
        LogNotification,
        TransactionNotification,
    )
    from backtest_sync.protocol.replacements import ReplacementNotification
    from backtest_sync.protocol.reports import ActionResultNotification, DiagnosticNotification
    from backtest_sync.protocol.standard import (
        AccountNotification,
        ProgramNotification,
        SignatureNotification,
        SlotInfoNotification,
    )
    from backtest_sync.rpc import RpcClient

N = TypeVar("N")
Options = TypeVar("Options", LinkOptions, StreamOptions)

logger = logging.getLogger("backtest_sync")


class SessionEndpoint:
    """Subscribe methods, each of which returns once the server acknowledged; JSON-RPC and what it is used for.

    With ``on_notification`` a `Subscription` calls it, in order, on a thread of its own; without, the handle
    is an iterator. ``options``: ``commitment``, ``replay_from_slot``, ``compression``,
    ``intra_slot_updates``, ``timeout`` (a deadline in seconds; ``None``: the client's ``request_timeout``),
    ``reconnect``. All raise `InvalidParamsError` and `SubscriptionError`. Subscribe once the session is
    ready: before, the server may keep the request waiting.
    """

    def __init__(
        self,
        rpc_endpoint: str,
        request_timeout: float | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self._endpoint = rpc_endpoint
        self._request_timeout = request_timeout
        self._ssl_context = ssl_context
        # of the three below; re-entrant, since a signal handler may close the session
        self._guard = threading.RLock()
        self._over = False
        self._rpc: RpcClient | None = None
        self._subscriptions: list[Subscription[Any]] = []

    # --- JSON-RPC

    @property
    def rpc(self) -> RpcClient:
        """The session's JSON-RPC. Usable once the session was ready; it needs no key."""
        from backtest_sync.rpc import RpcClient

        with self._guard:
            if self._rpc is None:
                self._rpc = RpcClient(self._endpoint, ssl_context=self._ssl_context)
            if self._over:
                self._rpc.close()
            return self._rpc

    def modify_accounts(self, modifications: ModificationsLike) -> int:
        """Write accounts at once (address to `AccountData`), for example while paused; how many.

        Undo by writing the old accounts back. To change state with a ``Continue``, pass ``modify_accounts``
        there. Raises `RpcError`, `HttpError`, `RequestTimeoutError`, `DeserializeError`, `InvalidParamsError`.
        """
        return self.rpc.modify_accounts(modifications)

    def modify_program(
        self, program_id: AddressLike, elf: bytes | str | PathLike[str]
    ) -> dict[str, AccountData]:
        """The modification that gives a deployed program new code: ``{program_data_address: AccountData}``.

        ``elf``: its bytes, or the path of a file. Call it once the session was ready. Nothing changes until the
        result is sent: pass it to `continue_` (``modify_accounts``) or `modify_accounts`.

        Raises `ProgramModError` (protocol/programs.md §1).
        """
        from backtest_sync.programs import modify_program

        return modify_program(self.rpc, program_id, elf)

    # --- streams

    def subscribe_program_logs(
        self,
        program_id: AddressLike,
        commitment: str | None = "confirmed",
        on_notification: Callable[[LogNotification], object] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Subscription[LogNotification]:
        """Logs of the transactions that mention a program."""
        return self._started(
            subscriptions.subscribe_program_logs(
                self._endpoint, program_id, commitment, on_notification, **self._with_ours(options)
            )
        )

    def subscribe_account_diffs(
        self,
        account_or_accounts: AddressLike | Iterable[AddressLike],
        on_notification: Callable[[AccountDiffNotification], object] | None = None,
        commitment: str | None = None,
        **options: Unpack[StreamOptions],
    ) -> Subscription[AccountDiffNotification]:
        """Accounts before and after each transaction that changed them."""
        return self._started(
            subscriptions.subscribe_account_diffs(
                self._endpoint,
                account_or_accounts,
                on_notification,
                commitment,
                **self._with_ours(options),
            )
        )

    def subscribe_program_diffs(
        self,
        program_id_or_ids: AddressLike | Iterable[AddressLike],
        on_notification: Callable[[AccountDiffNotification], object] | None = None,
        commitment: str | None = None,
        **options: Unpack[StreamOptions],
    ) -> Subscription[AccountDiffNotification]:
        """The same for every account of programs."""
        return self._started(
            subscriptions.subscribe_program_diffs(
                self._endpoint,
                program_id_or_ids,
                on_notification,
                commitment,
                **self._with_ours(options),
            )
        )

    def subscribe_transactions(
        self,
        program_id_or_ids: AddressLike | Iterable[AddressLike],
        on_notification: Callable[[TransactionNotification], object] | None = None,
        commitment: str | None = "confirmed",
        **options: Unpack[StreamOptions],
    ) -> Subscription[TransactionNotification]:
        """The transactions that mention programs, whole."""
        return self._started(
            subscriptions.subscribe_transactions(
                self._endpoint,
                program_id_or_ids,
                on_notification,
                commitment,
                **self._with_ours(options),
            )
        )

    def subscribe_actions(
        self,
        on_notification: Callable[[ActionResultNotification], object] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Subscription[ActionResultNotification]:
        """Results of the scheduled actions that the session was created with."""
        return self._started(
            subscriptions.subscribe_actions(
                self._endpoint, on_notification, **self._with_ours(options)
            )
        )

    def subscribe_replacements(
        self,
        on_notification: Callable[[ReplacementNotification], object] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Subscription[ReplacementNotification]:
        """What rerouting did to historical swaps."""
        return self._started(
            subscriptions.subscribe_replacements(
                self._endpoint, on_notification, **self._with_ours(options)
            )
        )

    def subscribe_diagnostics(
        self,
        on_notification: Callable[[DiagnosticNotification], object] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Subscription[DiagnosticNotification]:
        """Samples of the diagnostic probes that the session was created with."""
        return self._started(
            subscriptions.subscribe_diagnostics(
                self._endpoint, on_notification, **self._with_ours(options)
            )
        )

    def subscribe_account(
        self,
        account: AddressLike,
        on_notification: Callable[[AccountNotification], object] | None = None,
        commitment: str | None = "confirmed",
        **options: Unpack[StreamOptions],
    ) -> Subscription[AccountNotification]:
        """Solana's ``accountSubscribe``."""
        return self._started(
            subscriptions.subscribe_account(
                self._endpoint, account, on_notification, commitment, **self._with_ours(options)
            )
        )

    def subscribe_program(
        self,
        program_id: AddressLike,
        on_notification: Callable[[ProgramNotification], object] | None = None,
        commitment: str | None = "confirmed",
        **options: Unpack[StreamOptions],
    ) -> Subscription[ProgramNotification]:
        """Solana's ``programSubscribe``."""
        return self._started(
            subscriptions.subscribe_program(
                self._endpoint, program_id, on_notification, commitment, **self._with_ours(options)
            )
        )

    def subscribe_signature(
        self,
        signature: str | bytes | object,
        on_notification: Callable[[SignatureNotification], object] | None = None,
        commitment: str | None = "confirmed",
        **options: Unpack[StreamOptions],
    ) -> Subscription[SignatureNotification]:
        """Solana's ``signatureSubscribe``: one notification, and the stream is complete."""
        return self._started(
            subscriptions.subscribe_signature(
                self._endpoint, signature, on_notification, commitment, **self._with_ours(options)
            )
        )

    def subscribe_slots(
        self,
        on_notification: Callable[[SlotInfoNotification], object] | None = None,
        **options: Unpack[LinkOptions],
    ) -> Subscription[SlotInfoNotification]:
        """Solana's ``slotSubscribe``."""
        return self._started(
            subscriptions.subscribe_slots(
                self._endpoint, on_notification, **self._with_ours(options)
            )
        )

    def drain(self, timeout: float | None = 60.0) -> None:
        """After completion: wait until every subscription has delivered its terminal marker.

        `run` does this before it returns, so that its result never hides a cut-off stream. ``timeout`` is a
        silence of all of them in seconds. One that was stopped counts as delivered. Raises `SubscriptionError`
        for the first that failed, its callback included, or that is silent for so long.
        """
        drain(self._handles(), self._timeout(timeout))

    # --- inside

    def _timeout(self, timeout: float | None) -> float | None:
        return self._request_timeout if timeout is None else check_timeout(timeout)

    def _with_ours(self, options: Options) -> Options:
        options.setdefault("ssl_context", self._ssl_context)
        if options.get("timeout") is None:
            options["timeout"] = self._request_timeout
        return options

    def _handles(self) -> list[Subscription[Any]]:
        with self._guard:
            return list(self._subscriptions)

    def _started(self, handle: Subscription[N]) -> Subscription[N]:
        with self._guard:
            # those that ended well concern nobody any more
            self._subscriptions = [
                other
                for other in self._subscriptions
                if other.is_alive or other.failure is not None
            ]
            self._subscriptions.append(handle)
            over = self._over
        if over:  # its callback, perhaps, has closed the session already
            handle.begin_stop(drain=False)
        return handle

    def _is_in_callback(self) -> bool:
        """Whether the caller is a callback of one of the streams."""
        return any(handle.calls_now for handle in self._handles())

    def _end_streams(self, deadline: Deadline, *, drain: bool) -> None:
        """End what still runs, before the session's end cuts it off.

        At most half of the time left is for that, and some seconds: one may wait for who is called to close.
        """
        running = [handle for handle in self._handles() if handle.is_alive]
        for handle in running:
            handle.begin_stop(drain)
        if self._is_in_callback():
            return  # a callback can't wait for its own end
        limit = deadline.sooner(min(GRACEFUL_CLOSE_LIMIT, (deadline.remaining() or 0.0) / 2))
        for handle in running:
            if not handle.wait(limit.remaining()):
                handle.begin_stop(drain=False)
                logger.warning("%r did not end in time: the rest of it is dropped", handle)
            elif handle.failure is not None:
                logger.warning("%r failed: %s", handle, handle.failure)

    def _end_endpoint(self, *, drop: bool) -> None:
        """Nothing is served any more. ``drop``: what streams have not handed out is dropped at once."""
        with self._guard:
            self._over, handles = True, self._subscriptions
            if self._rpc is not None:
                self._rpc.close()
        for handle in handles:
            if drop or not handle.is_stopping:
                handle.begin_stop(drain=False)
