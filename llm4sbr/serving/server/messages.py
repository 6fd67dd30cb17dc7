"""Requests and answers of the API: their types, their JSON, and what is wrong with a request."""

from __future__ import annotations

import re
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from llm4sbr.serving.explain import Explanation
from llm4sbr.serving.recommendation import Recommendation
from llm4sbr.serving.server.options import Limits

encode = msgspec.json.Encoder().encode  # of any answer
_AT = re.compile(r"^(?P<said>.*?) - at `\$(?P<place>.*)`$", re.DOTALL)
_NAMED = re.compile(r"(?:missing required|unknown) field `(?P<name>[^`]*)`")


class Refusal(Exception):
    """A request that gets an error.

    Args:
        status: Status of HTTP.
        problem: Description of the error.
        field: Field of the request that it is about.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        problem: str,
        field: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(problem)
        self.status, self.problem, self.field, self.headers = status, problem, field, headers


class RecommendRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Request of recommendations; `request_type` makes the type with the server's limits."""

    sessions: list[list[str]]
    k: int
    seen: bool
    only: list[str] | None
    without: list[str] | None


class ExplainRequest(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Request of an explanation; `explain_type` makes the type with the server's limits."""

    session: list[str]
    item: str


class Unknown(msgspec.Struct, frozen=True):
    """Ids of the filters that the catalogue lacks."""

    only: list[str]
    without: list[str]


class RecommendAnswer(msgspec.Struct, frozen=True):
    """Recommendations of each session, in the order of the request, and the bundle that they come from."""

    bundle: str
    recommendations: list[Recommendation]
    unknown: Unknown


class ExplainAnswer(msgspec.Struct, frozen=True):
    """Explanation of an item, and the bundle that it comes from."""

    bundle: str
    explanation: Explanation


class Item(msgspec.Struct, frozen=True):
    """An item of the catalogue."""

    id: str
    title: str


class Items(msgspec.Struct, frozen=True):
    """Items whose titles contain the query; `total` counts them beyond the limit, too."""

    bundle: str
    total: int
    items: list[Item]


class Problem(msgspec.Struct, frozen=True):
    """Error of a request."""

    error: str
    field: str | None


Request = TypeVar("Request", RecommendRequest, ExplainRequest)


class Reader(Generic[Request]):
    """Reads the requests of a route within limits.

    Args:
        kind: Type of `recommend_type` or `explain_type`.
    """

    def __init__(self, kind: Any) -> None:
        self.type: Any = kind
        self._decoder: msgspec.json.Decoder[Request] = msgspec.json.Decoder(kind)

    def read(self, body: bytes) -> Request:
        """Read a body.

        Raises:
            Refusal: If it is not JSON (400), or a field is wrong (422).
        """
        try:
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise Refusal(422, *_explained(str(error))) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refusal(400, f"the body is not JSON in UTF-8: {error}", "body") from None


def recommend_type(limits: Limits) -> Any:
    """The type of a request of recommendations, with limits on every field."""
    item: Any = _item_id(limits)
    session = Annotated[
        list[item],
        msgspec.Meta(max_length=limits.clicks, description="Ids of the clicked items, oldest first."),
    ]
    sessions = Annotated[list[session], msgspec.Meta(min_length=1, max_length=limits.sessions)]
    listed = Annotated[list[item], msgspec.Meta(max_length=limits.listed)] | None
    count = Annotated[int, msgspec.Meta(ge=1, le=limits.k, description="Number of items.")]
    seen = Annotated[bool, msgspec.Meta(description="Whether a session's own items may be recommended.")]
    return msgspec.defstruct(
        "RecommendRequest",
        [
            ("sessions", sessions),
            ("k", count, 20),
            ("seen", seen, True),
            ("only", listed, None),
            ("without", listed, None),
        ],
        forbid_unknown_fields=True,
        frozen=True,
        module=__name__,
        namespace={"__doc__": "Request of recommendations."},
    )


def explain_type(limits: Limits) -> Any:
    """The type of a request of an explanation, with limits on every field."""
    item: Any = _item_id(limits)
    session = Annotated[
        list[item],
        msgspec.Meta(
            min_length=1, max_length=limits.explained, description="Ids of the clicked items, oldest first."
        ),
    ]
    return msgspec.defstruct(
        "ExplainRequest",
        [("session", session), ("item", item)],
        forbid_unknown_fields=True,
        frozen=True,
        module=__name__,
        namespace={"__doc__": "Request of an explanation."},
    )


def _item_id(limits: Limits) -> Any:
    return Annotated[str, msgspec.Meta(min_length=1, max_length=limits.id_length)]


def whole_number(text: str, field: str, low: int, high: int) -> int:
    """Read a number of a query.

    Raises:
        Refusal: If it is no number from `low` to `high`.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not low <= int(text) <= high:
        raise Refusal(422, f"this must be a whole number from {low} to {high}", field)
    return int(text)


def _explained(message: str) -> tuple[str, str]:
    """Description and field of an error of msgspec."""
    found = _AT.match(message)
    said, place = (found["said"], found["place"]) if found else (message, "")
    named = _NAMED.search(said)
    field = ".".join(part for part in (place.lstrip("."), named["name"] if named else "") if part)
    return said[0].lower() + said[1:], field or "body"
