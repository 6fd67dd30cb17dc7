"""Rebuildable objects: a checkpoint stores their constructor arguments and builds them again."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, Self

from llm4sbr.contracts.errors import InputError
from llm4sbr.contracts.ranges import Ranged, given

_PLAIN = (bool, int, float, str, type(None))
_LOST = "not_kept"  # key of an argument's type in a description that could not keep its value


class Rebuildable(Ranged):
    """Base class that records its constructor arguments, so that a checkpoint can store them.

    Defaults are recorded, too, because another version may have other defaults. Plain values, lists and
    dictionaries of plain values, and `Rebuildable` arguments are kept; for any other argument a description
    keeps only the name of its type.
    """

    _made_with: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Record the arguments before the constructor uses them."""
        made = super().__new__(cls, *args, **kwargs)
        object.__setattr__(made, "_made_with", _bound(cls, args, kwargs))
        return made


def _bound(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Bind arguments to the names of the constructor's parameters, with defaults."""
    found = given(cls, args, kwargs)
    return {} if found is None else {**_defaults(cls), **found}


def _defaults(cls: type) -> dict[str, Any]:
    """Defaults of a constructor, and of its parents' constructors that receive its ``**kwargs``."""
    found: dict[str, Any] = {}
    for part in cls.__mro__:
        if "__init__" not in vars(part):
            continue
        parameters = inspect.signature(vars(part)["__init__"]).parameters.values()
        for one in parameters:
            if one.default is not inspect.Parameter.empty:
                found.setdefault(one.name, one.default)
        if all(one.kind is not inspect.Parameter.VAR_KEYWORD for one in parameters):
            break
    return found


def class_path(cls: type) -> str:
    """Dotted name of a class in a description."""
    return f"{cls.__module__}.{cls.__qualname__}"


def describe(made: Rebuildable, chosen: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Describe an object by its class and its constructor arguments, as plain values.

    Args:
        made: Object to describe.
        chosen: Default parts that its constructor created for omitted arguments, by argument name.

    Returns:
        ``{"class_path": …, "init_args": {…}}``. An argument without a plain form becomes
        ``{"not_kept": TYPE}``.
    """
    return {
        "class_path": class_path(type(made)),
        "init_args": {name: _plain(value) for name, value in {**made._made_with, **(chosen or {})}.items()},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Rebuildable):
        return describe(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(part) for key, part in value.items()}
    return {_LOST: class_path(type(value))}


def settings(description: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a description in the form for a logger: parts are keyed by their class names.

    >>> part = {"class_path": "a.Part", "init_args": {"size": 3}}
    >>> settings({"class_path": "a.Whole", "init_args": {"x": 1, "parts": [part], "one": part}})
    {'x': 1, 'parts': {'Part': {'size': 3}}, 'one': {'name': 'Part', 'size': 3}}
    """
    return {name: _shown(value) for name, value in description["init_args"].items()}


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping) and set(value) == {"class_path", "init_args"}:
        return {"name": value["class_path"].rpartition(".")[2], **settings(value)}
    if isinstance(value, list) and value and all(isinstance(part, Mapping) for part in value):
        shown = [dict(_shown(part)) for part in value]
        return {part.pop("name", str(place)): part for place, part in enumerate(shown)}
    return value


def arguments(description: Mapping[str, Any], classes: Iterable[type]) -> dict[str, Any]:
    """Build the arguments of a description; arguments that were not kept are omitted.

    Args:
        description: Output of `describe`, possibly read from an untrusted file.
        classes: Classes that may be built; no other code runs.

    Raises:
        InputError: If the description is malformed or names a class that is not in `classes`.
    """
    known = {class_path(cls): cls for cls in _with_groups(classes)}
    given = description.get("init_args") if isinstance(description, Mapping) else None
    if not isinstance(given, Mapping):
        raise InputError("this is no description of an object", value=type(description).__name__)
    return {name: _built(value, known) for name, value in given.items() if not _lost(value)}


def _with_groups(classes: Iterable[type]) -> list[type]:
    """The classes, and the option groups (`Rebuildable` dataclasses) defined in their modules."""
    found = list(classes)
    for cls in list(found):
        beside: list[Any] = list(vars(sys.modules[cls.__module__]).values())
        own = [one for one in beside if isinstance(one, type) and one.__module__ == cls.__module__]
        found += [one for one in own if issubclass(one, Rebuildable) and is_dataclass(one)]
    return found


def _lost(value: Any) -> bool:
    """Whether a value, or something inside it, was not kept."""
    if isinstance(value, Mapping):
        return set(value) == {_LOST} or any(_lost(part) for part in value.values())
    return isinstance(value, list) and any(_lost(part) for part in value)


def _built(value: Any, known: Mapping[str, type]) -> Any:
    if isinstance(value, list):
        return [_built(part, known) for part in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) != {"class_path", "init_args"}:
        return {key: _built(part, known) for key, part in value.items()}
    cls = known.get(str(value["class_path"]))
    if cls is None:
        raise InputError(
            "the description names a class that is not registered, so it is not built",
            value=value["class_path"],
            hint="If you trust it, pass the class: load_from_checkpoint(path, classes=[…])",
        )
    return cls(**arguments(value, known.values()))
