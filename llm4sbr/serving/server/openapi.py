"""The OpenAPI schema of the server, from the types of its messages."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from llm4sbr.serving.server.messages import ExplainAnswer, Item, Items, Problem, RecommendAnswer

_FOUND = "Items whose titles have every word of the query, or whose id it is; without a query every item."
_ERRORS = {
    "400": "The body is not JSON in UTF-8.",
    "401": "The API key is missing or wrong.",
    "404": "There is no such item or path.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is not application/json.",
    "422": "A field is wrong; `field` names it.",
    "503": "Too much waits; Retry-After says when to try again.",
}


def schema(recommend_request: Any, explain_request: Any, *, has_key: bool, compared: bool) -> dict[str, Any]:
    """Make the schema, of OpenAPI 3.1.

    Args:
        recommend_request: Type of a request of recommendations, with the server's limits.
        explain_request: Type of a request of an explanation.
        has_key: Whether an API key is needed.
        compared: Whether there is a second bundle.
    """
    types = [recommend_request, RecommendAnswer, explain_request, ExplainAnswer, Items, Item, Problem]
    found, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    asked, answer, question, reasons, items, item, problem = found
    recommend = {
        "summary": "Recommend the next item of each session",
        "operationId": "recommend",
        "requestBody": {"required": True, "content": _json(asked)},
        "responses": _answers("Recommendations of each session.", answer, problem, *_ERRORS),
    }
    explain = {
        "summary": "Explain the place of an item for a session: the effect of each click, view and head",
        "operationId": "explain",
        "requestBody": {"required": True, "content": _json(question)},
        "responses": _answers("Explanation of the item.", reasons, problem, *_ERRORS),
    }
    search = {
        "summary": "Search items by title or id",
        "operationId": "searchItems",
        "parameters": [
            _parameter("query", "query", {"type": "string", "minLength": 1}),
            _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        ],
        "responses": _answers(_FOUND, items, problem, "401", "422", "503"),
    }
    one = {
        "summary": "Look up an item",
        "operationId": "item",
        "parameters": [_parameter("id", "path", {"type": "string"}, True)],
        "responses": _answers("The item.", item, problem, "401", "404"),
    }
    state: dict[str, Any] = {"type": "object", "properties": {"status": {"type": "string"}}}
    made: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "llm4sbr", "version": _version()},
        "paths": {
            "/v1/recommend": {"post": recommend},
            "/v1/explain": {"post": explain},
            "/v1/items": {"get": search},
            "/v1/items/{id}": {"get": one},
            "/health": {"get": _open("Whether the process is alive", state, problem)},
            "/ready": {"get": _open("Whether requests should be sent here", state, problem, "503")},
            "/metrics": {
                "get": {
                    "summary": "Metrics in the text format of Prometheus",
                    "responses": {"200": {"description": "Metrics.", "content": {"text/plain": {}}}},
                }
            },
        },
        "components": {"schemas": components},
    }
    if compared:
        for name, route in (("recommend", recommend), ("explain", explain)):
            summary = f"{route['summary']}, from the second bundle"
            further = {"summary": summary, "operationId": f"{name}Compared"}
            made["paths"][f"/v1/compared/{name}"] = {"post": {**route, **further}}
    if has_key:
        made["security"] = [{"key": []}]
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return made


def _json(of: Any) -> dict[str, Any]:
    return {"application/json": {"schema": of}}


def _answers(said: str, of: Any, problem: Any, *errors: str) -> dict[str, Any]:
    bad = {code: {"description": _ERRORS[code], "content": _json(problem)} for code in errors}
    return {"200": {"description": said, "content": _json(of)}, **bad}


def _open(summary: str, of: Any, problem: Any, *errors: str) -> dict[str, Any]:
    return {"summary": summary, "security": [], "responses": _answers("Yes.", of, problem, *errors)}


def _parameter(name: str, where: str, of: dict[str, Any], required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": of}


def _version() -> str:
    try:
        return version("llm4sbr")
    except PackageNotFoundError:  # a checkout on sys.path
        return "0"
