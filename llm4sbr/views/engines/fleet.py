"""A fleet of equal servers: whom to ask next, who rests, and when to stop asking."""

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
_MAX_REST = 30.0  # seconds; a server that is back is noticed within them
_FIRST_CONTACT = 15.0  # seconds; a mistyped address should show soon
_POLL = 0.02  # seconds
_KEPT = "What was answered is kept: run the same command again to go on from there"


class Unavailable(Exception):
    """The server takes no request now (refused, overloaded, restarting): no fault of the prompt.

    Args:
        reason: For people.
        retry_after: Seconds that the server asked to wait, if it said.
        spoke: The server answered, though only to say so.
    """

    def __init__(self, reason: str, retry_after: float | None = None, spoke: bool = False) -> None:
        super().__init__(reason)
        self.retry_after, self.spoke = retry_after, spoke


@dataclass(eq=False)
class Member:
    """One server.

    Args:
        url: Its address, fit to be shown.
        client: The client that talks to it.
    """

    url: str
    client: Any
    outstanding: int = 0
    outages: int = 0  # rests since it last took a request
    rest_until: float = 0.0  # on the monotonic clock
    proven: bool = False  # it has answered a prompt
    warned: bool = False


class Fleet:
    """Hands out members, least busy first, and keeps resting ones out of it.

    Args:
        members: At least one.
        backoff: Seconds of the first rest; each further one is twice as long, up to 30.
        max_outage: Seconds without any member taking a request, after which it gives up.
        max_failures: Prompts that failed in a row, with no answer in between, after which it gives up.
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
        """A member to ask, another than ``avoid`` if there is one; waits while all rest.

        Give it back by counting ``outstanding`` down.

        Raises:
            InputError: All of them have rested for too long.
        """
        while True:
            now = time.monotonic()
            # One that comes back from a rest is asked one prompt first, not all that wait.
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
        """Leave a member alone for a while.

        Raises:
            InputError: No member has taken a request for too long.
        """
        now = time.monotonic()
        self._reason = f"{member.url}: {trouble}"
        self._in_contact |= trouble.spoke
        self._down_since = self._down_since or now
        if member.rest_until <= now:  # else one of the same moment's requests has said so already
            member.outages += 1
            member.rest_until = now + pause(self.backoff, member.outages, _MAX_REST)
        if trouble.retry_after is not None:
            member.rest_until = max(member.rest_until, now + trouble.retry_after)
        if not member.warned:
            _log.warning("%s; waiting for it (told once)", self._reason)
            member.warned = True
        self._check_outage(now)

    def reached(self, member: Member) -> None:
        """The member took a request, whatever came of it."""
        member.outages, self._down_since, self._in_contact = 0, None, True

    def answered(self, member: Member) -> None:
        """The member answered a prompt."""
        self.reached(member)
        member.proven, self._failed = True, 0

    def failed(self, reason: str) -> None:
        """A prompt used up its tries."""
        self._failed += 1
        self._reason = reason

    def check_failures(self) -> None:
        """Stop where failures are no exception any more.

        Raises:
            InputError: Too many prompts failed in a row.
        """
        if self._failed >= self.max_failures:
            raise InputError(
                f"{self._failed} prompts in a row got no answer from {self}; the last: {self._reason}",
                hint=f"See the server's own log. {_KEPT}",
            )

    def _check_outage(self, now: float) -> None:
        patience = self.max_outage if self._in_contact else min(self.max_outage, _FIRST_CONTACT)
        if self._down_since is not None and now - self._down_since >= patience:
            raise InputError(
                f"no server took a request for {patience:g} s. The last that was heard: {self._reason}",
                hint=_KEPT if self._in_contact else "Start the server, or mend base_url",
            )

    def __str__(self) -> str:
        return ", ".join(member.url for member in self.members)


def pause(first: float, count: int, longest: float) -> float:
    """Seconds to wait before try ``count + 1``: doubled each time, and scattered by up to a quarter.

    >>> 4.0 <= pause(1.0, 3, 30.0) <= 5.0
    True
    """
    return min(longest, first * 2.0 ** min(count - 1, 30)) * random.uniform(1.0, 1.25)
