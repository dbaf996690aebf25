"""The subscriptions of one session: each function of `backtest_sync.subscriptions`, on its endpoint."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from backtest_sync import subscriptions
from backtest_sync.subscription import Subscription, drain
from backtest_sync.subscriptions import LinkOptions, StreamOptions

if TYPE_CHECKING:
    import ssl

    from typing_extensions import Unpack

    from backtest_sync.protocol.fields import AddressLike
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

N = TypeVar("N")
Options = TypeVar("Options", LinkOptions, StreamOptions)

logger = logging.getLogger("backtest_sync")


class SessionStreams:
    """Subscribe methods. Each returns once the server acknowledged; see `backtest_sync.subscriptions`.

    With ``on_notification`` a `Subscription` calls it, in order, on a thread of its own; without, the handle is
    an iterator. ``options``: ``commitment``, ``replay_from_slot``, ``compression``, ``intra_slot_updates``,
    ``timeout`` (a deadline in seconds), ``reconnect``. All raise `InvalidParamsError` and `SubscriptionError`.
    Subscribe once the session is ready: before, the server may keep the request waiting.
    """

    def __init__(self, rpc_endpoint: str, ssl_context: ssl.SSLContext | None) -> None:
        self._endpoint = rpc_endpoint
        self._ssl_context = ssl_context
        self._subscriptions: list[Subscription[Any]] = []

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
                self._endpoint, program_id, commitment, on_notification, **self._with_tls(options)
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
                **self._with_tls(options),
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
                **self._with_tls(options),
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
                **self._with_tls(options),
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
                self._endpoint, on_notification, **self._with_tls(options)
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
                self._endpoint, on_notification, **self._with_tls(options)
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
                self._endpoint, on_notification, **self._with_tls(options)
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
                self._endpoint, account, on_notification, commitment, **self._with_tls(options)
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
                self._endpoint, program_id, on_notification, commitment, **self._with_tls(options)
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
                self._endpoint, signature, on_notification, commitment, **self._with_tls(options)
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
                self._endpoint, on_notification, **self._with_tls(options)
            )
        )

    def drain(self, timeout: float | None = 60.0) -> None:
        """After completion: wait until every subscription has delivered its terminal marker.

        `run` does this before it returns, so that its result never hides a cut-off stream. ``timeout`` is a
        silence of all of them in seconds. One that was stopped counts as delivered. Raises `SubscriptionError`
        for the first that failed, its callback included, or that is silent for so long.
        """
        drain(self._subscriptions, timeout)

    def _with_tls(self, options: Options) -> Options:
        options.setdefault("ssl_context", self._ssl_context)
        return options

    def _started(self, handle: Subscription[N]) -> Subscription[N]:
        self._subscriptions.append(handle)
        return handle

    def _stop_streams(self) -> None:
        """End what still runs, before the session's end cuts it off."""
        running = [handle for handle in self._subscriptions if handle.is_alive]
        for handle in running:
            try:
                handle.stop()
            except Exception as failure:  # noqa: BLE001 - any that a callback may raise
                logger.warning("%r failed: %s", handle, failure)
