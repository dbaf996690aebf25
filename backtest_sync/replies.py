"""The outcomes of an HTTP request, and when one may be sent again."""

from __future__ import annotations

import itertools
import random
from enum import Enum
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from backtest_sync.errors import HttpError, HttpStatusError
from backtest_sync.protocol import jsontext

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from backtest_sync.errors import RequestTimeoutError

#: How much of the body of a non-2xx answer is kept, in bytes.
MAX_ERROR_BODY_BYTES = 1024 * 1024
#: Answers that ask for another try: too many requests, bad gateway, unavailable, gateway timeout.
RETRY_STATUSES = frozenset({429, 502, 503, 504})
#: The first pause before another try and the longest, in seconds; each doubles, with jitter.
RETRY_PAUSE, MAX_RETRY_PAUSE = 0.1, 2.0


class Repeat(Enum):
    """When a failed request may be sent again, while its ``retry_for`` lasts."""

    UNSENT = "unsent"  #: only when no connection came about, so that it was never sent
    SAFE = "safe"  #: also after a broken connection or an answer of `RETRY_STATUSES`


@frozen
class HttpReply:
    """An answer of any status. ``url`` is as errors show it: no user, password or query."""

    url: str
    status: int
    phrase: str
    body: bytes = field(repr=lambda body: f"{len(body)} bytes")
    headers: Mapping[str, str] = field(factory=dict, repr=False, eq=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    def raise_for_status(self) -> HttpReply:
        """This reply, when its status is 2xx; else `HttpStatusError` with the body's text."""
        if not 200 <= self.status < 300:
            raise HttpStatusError(self.url, self.status, self.phrase, self.text)
        return self

    def json(self) -> Any:
        """The body's JSON value; `HttpError` when it is none."""
        try:
            return jsontext.loads(self.body)
        except ValueError as error:
            raise self.error(f"the body is no JSON: {error}") from error

    def error(self, reason: str) -> HttpError:
        """An error about this reply, to raise."""
        return HttpError(
            self.url,
            reason,
            status=self.status,
            body=self.body[:MAX_ERROR_BODY_BYTES].decode("utf-8", "replace"),
        )


@frozen
class Failure:
    """A try that gave no answer, and what it says about another one."""

    error: HttpError | RequestTimeoutError
    cause: BaseException | None = None
    unsent: bool = False  # no connection came about
    passing: bool = False  # may be over when tried again


def pauses() -> Iterator[float]:
    for n in itertools.count():
        yield min(RETRY_PAUSE * 2**n, MAX_RETRY_PAUSE) * random.uniform(0.5, 1)  # noqa: S311 spreads clients


def repeatable(outcome: HttpReply | Failure, repeat: Repeat) -> bool:
    if isinstance(outcome, Failure):
        return outcome.passing and (outcome.unsent or repeat is Repeat.SAFE)
    return repeat is Repeat.SAFE and outcome.status in RETRY_STATUSES


def retry_after(outcome: HttpReply | Failure) -> float:
    """Seconds that the server asks to wait."""
    text = "" if isinstance(outcome, Failure) else outcome.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0
