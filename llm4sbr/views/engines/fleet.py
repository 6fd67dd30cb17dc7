"""A fleet of equal servers: load balancing, back-off after errors, and the limit of an outage."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llm4sbr.contracts.errors import InputError

_log = logging.getLogger(__name__)
_MAX_REST = 30.0  # seconds until a server that is back is tried again
_FIRST_CONTACT = 15.0  # seconds; a mistyped address should fail soon
_POLL = 0.02  # seconds
_KEPT = "The answers so far are kept: run the same command again to continue"


class Unavailable(Exception):
    """The server accepts no requests now (refused, overloaded, restarting); the prompt is not the cause.

    Args:
        reason: Description for the user.
        retry_after: Seconds to wait as requested by the server, if given.
        responded: Whether the server sent a response, if only to refuse the request.
    """

    def __init__(self, reason: str, retry_after: float | None = None, responded: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.responded = retry_after, responded


@dataclass(eq=False)
class Member:
    """One server.

    Args:
        url: Address without credentials, for messages.
        client: Client connected to the server.
    """

    url: str
    client: Any
    outstanding: int = 0
    outages: int = 0  # rests since it last accepted a request
    rest_until: float = 0.0  # on the monotonic clock
    proven: bool = False  # it has answered a prompt
    warned: bool = False


class Fleet:
    """Selects the least busy member for each prompt and skips members that rest after an error.

    Args:
        members: The servers, at least one.
        backoff: Seconds of the first rest; each further one is twice as long, up to 30.
        max_outage: Longest time in seconds without a member that accepts requests, before the run fails.
        max_failures: Number of consecutive failed prompts before the run fails.
    """

    def __init__(
        self, members: Sequence[Member], backoff: float, max_outage: float, max_failures: int
    ) -> None:
        self.members, self.backoff = members, backoff
        self.max_outage, self.max_failures = max_outage, max_failures
        self._down_since: float | None = None
        self._in_contact = False
        self._failed = 0
        self._reason = ""

    async def take(self, avoid: Member | None) -> Member:
        """Select a member, another than ``avoid`` if possible; waits while all rest.

        The caller decrements the member's ``outstanding`` when it is done.

        Raises:
            InputError: All members have rested for too long.
        """
        while True:
            now = time.monotonic()
            # After a rest a member gets one prompt first, not all waiting ones.
            ready = [
                member
                for member in self.members
                if member.rest_until <= now and not (member.outages and member.outstanding)
            ]
            if ready:
                member = min(ready, key=lambda member: (member is avoid, member.outstanding))
                member.outstanding += 1
                return member
            self._check_outage(now)
            wake = min(member.rest_until for member in self.members) - now
            await asyncio.sleep(min(1.0, max(_POLL, wake)))

    def rest(self, member: Member, trouble: Unavailable) -> None:
        """Send a member no prompts for a while.

        Raises:
            InputError: No member has accepted a request for too long.
        """
        now = time.monotonic()
        self._reason = f"{member.url}: {trouble}"
        self._in_contact |= trouble.responded
        self._down_since = self._down_since or now
        if member.rest_until <= now:  # otherwise a concurrent request has reported the outage
            member.outages += 1
            member.rest_until = now + pause(self.backoff, member.outages, _MAX_REST)
        if trouble.retry_after is not None:
            member.rest_until = max(member.rest_until, now + trouble.retry_after)
        if not member.warned:
            _log.warning("%s; waiting for the server (reported once)", self._reason)
            member.warned = True
        self._check_outage(now)

    def reached(self, member: Member) -> None:
        """Record that the member accepted a request, whatever its outcome."""
        member.outages, self._down_since, self._in_contact = 0, None, True

    def answered(self, member: Member) -> None:
        """Record that the member answered a prompt."""
        self.reached(member)
        member.proven, self._failed = True, 0

    def failed(self, reason: str) -> None:
        """Record a prompt that used up its retries."""
        self._failed += 1
        self._reason = reason

    def check_failures(self) -> None:
        """Check the number of consecutive failures.

        Raises:
            InputError: Too many consecutive prompts failed.
        """
        if self._failed >= self.max_failures:
            raise InputError(
                f"{self._failed} prompts in a row got no answer from {self}; the last: {self._reason}",
                hint=f"See the server's log. {_KEPT}",
            )

    def _check_outage(self, now: float) -> None:
        patience = self.max_outage if self._in_contact else min(self.max_outage, _FIRST_CONTACT)
        if self._down_since is not None and now - self._down_since >= patience:
            raise InputError(
                f"no server accepted a request for {patience:g} s. The last error: {self._reason}",
                hint=_KEPT if self._in_contact else "Start the server, or correct base_url",
            )

    def __str__(self) -> str:
        return ", ".join(member.url for member in self.members)


def pause(first: float, count: int, longest: float) -> float:
    """Seconds to wait before attempt ``count + 1``: doubled each time, with jitter of up to a quarter.

    >>> 4.0 <= pause(1.0, 3, 30.0) <= 5.0
    True
    """
    return min(longest, first * 2.0 ** min(count - 1, 30)) * random.uniform(1.0, 1.25)
