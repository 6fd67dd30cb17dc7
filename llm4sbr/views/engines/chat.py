"""One request of the OpenAI chat protocol; each kind of error is an exception that decides the next step."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from llm4sbr.contracts.errors import InputError
from llm4sbr.views.engines import Answer
from llm4sbr.views.engines.fleet import Member, Unavailable
from llm4sbr.views.engines.redaction import redact, secrets_of, secrets_of_address
from llm4sbr.views.engines.thoughts import NOTHING_ELSE, UNFINISHED, without_thoughts

_BUSY = {429, 502, 503, 504}  # a server, or a proxy in front of it, accepts no requests now
_ABOUT_THE_REQUEST = {400, 413, 422}  # bad parameters, or a prompt that is too long or not allowed
_MOST_TOKENS = 1 << 40  # larger counts are wrong, and beyond 64 bits the store cannot keep them
_LONGEST_WAIT = 3600.0  # seconds; a server may ask for any time
_REASONING = ("reasoning", "reasoning_content")  # where servers put thoughts that they separate


class BadAnswer(Exception):
    """A missing, incomplete or unreadable answer.

    Args:
        reason: Description for the user.
        final: Whether another attempt would end the same way.
    """

    def __init__(self, reason: str, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


class Refused(Exception):
    """The server refuses this prompt; a retry would not help."""


class Chat:
    """Sends prompts as single user messages.

    Args:
        model: Name of the model on the server.
        body: Fields of the request besides model and messages.
        timeout: Seconds for one request.
        key: API key.
        urls: Addresses of the servers. Their logins and queries, the key and the secrets in `body` are
            redacted from messages that repeat them.
    """

    def __init__(
        self, model: str, body: Mapping[str, Any], timeout: float, key: str, urls: Sequence[str] = ()
    ) -> None:
        self.model, self.body, self.timeout, self._key = model, dict(body), timeout, key
        self._secrets = {key, *secrets_of(body)}.union(*map(secrets_of_address, urls))

    def connect(self, url: str) -> Any:
        """Create a client for one server, to use as an asynchronous context manager."""
        import openai

        return openai.AsyncOpenAI(
            base_url=url,
            api_key=self._key or "none",  # the client requires one
            # The client's own retries end after some 15 s while a server may take minutes to restart; they do
            # not cover unreadable answers, nor a second server.
            max_retries=0,
            timeout=openai.Timeout(None, connect=min(self.timeout / 2, 10.0)),  # `_send` limits the total
        )

    async def query(self, member: Member, prompt: str) -> Answer:
        """Send a prompt once.

        Raises:
            Unavailable: The server accepts no requests now.
            Refused: The server does not accept this prompt.
            BadAnswer: The answer is missing or unreadable.
            InputError: The server answers no prompt at all: wrong key, model or parameters.
        """
        import openai

        try:
            return await self._send(member, prompt)
        except openai.APIStatusError as error:
            # The client's own message leaves out everything outside a "message" field.
            status, said = error.status_code, self._clean(f"HTTP {error.status_code} {error.response.text}")
            if status == 429 and error.code == "insufficient_quota":
                raise self._unusable(member, said, "The quota of this API key is used up") from None
            if status in _BUSY:
                after = _retry_after(error.response.headers)
                raise Unavailable(said, retry_after=after, responded=True) from None
            if status >= 500 or status in {408, 409}:
                raise BadAnswer(said) from None
            if status in _ABOUT_THE_REQUEST and await self._answers_others(member):
                raise Refused(said) from None
            raise self._unusable(member, said, _hint(status, member.url)) from None
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            said = self._clean(f"{type(cause).__name__}: {cause}")
            # No connection: the server is down. A cut one: this prompt may crash the server, so it counts.
            kind = Unavailable if type(cause).__name__.startswith("Connect") else BadAnswer
            raise kind(said) from None
        except TimeoutError:
            raise BadAnswer(f"no answer within {self.timeout:g} s") from None
        # ValueError: the response is not JSON or no text; RecursionError: it is nested too deeply
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            raise BadAnswer(self._clean(f"unreadable answer: {error}")) from None

    async def _send(self, member: Member, prompt: str) -> Answer:
        async with asyncio.timeout(self.timeout):  # the client's own limit applies to each read separately
            completion = await member.client.chat.completions.create(
                model=self.model, messages=[{"role": "user", "content": prompt}], extra_body=self.body
            )
        return _read(completion)

    async def _answers_others(self, member: Member) -> bool:
        """Whether the server answers another prompt with the same parameters: the prompt is at fault."""
        import openai

        if not member.proven:
            try:
                await self._send(member, "Hi")
            except openai.APIStatusError:
                return False
            except (openai.OpenAIError, TimeoutError, ValueError, RecursionError, BadAnswer):
                pass  # not a refusal
        return True

    def _unusable(self, member: Member, said: str, hint: str) -> InputError:
        return InputError(f"{member.url} does not answer for model {self.model!r}: {said}", hint=hint)

    def _clean(self, text: str) -> str:
        """Shorten a message to one line and redact secrets, which some servers repeat."""
        text = redact(" ".join(text.split()), self._secrets).rstrip(" .:")
        return text if len(text) <= 300 else text[:299] + "…"


def _read(completion: Any) -> Answer:
    try:
        choice = completion.choices[0]
        message, finish = choice.message, choice.finish_reason
        text = _text(message.content) if message.content is not None else message.refusal
    except (AttributeError, IndexError, TypeError, KeyError):
        raise ValueError(f"no choices in {str(completion)[:200]!r}") from None
    if not isinstance(text, str):
        if finish == "length":  # a retry would end the same way
            raise BadAnswer(UNFINISHED, final=True)
        raise ValueError("it has no text")
    said = without_thoughts(text)
    if said is None:
        raise BadAnswer(UNFINISHED if finish == "length" else NOTHING_ELSE, final=True)
    thought = said != text.strip() or any(getattr(message, name, None) for name in _REASONING)
    if not said and thought:
        raise BadAnswer(UNFINISHED if finish == "length" else NOTHING_ELSE, final=True)
    usage = getattr(completion, "usage", None)
    prompt_tokens = _count(usage, "prompt_tokens")
    reused = _count(getattr(usage, "prompt_tokens_details", None), "cached_tokens")
    return Answer(
        text=said,
        prompt_tokens=prompt_tokens,
        computed_tokens=max(0, prompt_tokens - reused),
        answer_tokens=_count(usage, "completion_tokens"),
        finished=finish != "length",
    )


def _text(content: object) -> object:
    """Join the text of an answer that comes in parts, as Mistral's reasoning models send it."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    return "".join(str(part.get("text", "")) for part in content if part.get("type") == "text")


def _count(usage: object, name: str) -> int:
    value = getattr(usage, name, None)
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else 0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Read the seconds to wait from the Retry-After header, which is a number or a date."""
    said = headers.get("retry-after")
    if said is None:
        return None
    try:
        wait = float(said)
    except ValueError:
        try:
            wait = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError, OSError):
            return None
    return None if math.isnan(wait) else min(max(0.0, wait), _LONGEST_WAIT)


def _hint(status: int, url: str) -> str:
    if status in {401, 403}:
        return "Set OPENAI_API_KEY, or api_key, to a key that this server accepts"
    if status == 404:
        return f"Check the model's name ({url}/models lists them) and base_url, which mostly ends in /v1"
    return "Correct the model's name, max_new_tokens or extra_body"
