"""Objects that a checkpoint can name: the arguments they were made with, and how to make them again."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, Self

from llm4sbr.contracts.errors import InputError

_PLAIN = (bool, int, float, str, type(None))
_LOST = "not_kept"  # key under which a description names what it could not keep


class Rebuildable:
    """Remembers the arguments that it was constructed with, so that a checkpoint can name them.

    A base class. Defaults are kept, too: those of another version may differ. Arguments that are plain
    values, lists and dictionaries of them, or `Rebuildable` themselves are kept; of others a description
    keeps the type's name only.
    """

    _made_with: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments before the constructor uses them."""
        made = super().__new__(cls)
        object.__setattr__(made, "_made_with", _bound(cls, args, kwargs))
        return made


def _bound(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the constructor's parameters."""
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError:  # the constructor raises it again; copying an object gives no arguments at all
        return {}
    found: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:  # without self
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return {**_defaults(cls), **found}


def _defaults(cls: type) -> dict[str, Any]:
    """Defaults of a constructor, and of its parents' as far as it hands ``**kwargs`` to them."""
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
    """The dotted name by which a description names a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def describe(made: Rebuildable, chosen: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The class of an object and the arguments it was made with, as plain values.

    Args:
        made: The object.
        chosen: What its constructor chose in the place of arguments, by their names.

    Returns:
        ``{"class_path": …, "init_args": {…}}``. An argument that has no plain form stands as
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
    """The arguments of a description in the form in which a logger shows them: parts by their class names.

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
    """The arguments of a description as objects; what was not kept is left out.

    Args:
        description: What `describe` returned, perhaps read from a file of somebody else's.
        classes: The classes that may be built; no other code runs.

    Raises:
        InputError: The description is not one, or it names another class.
    """
    known = {class_path(cls): cls for cls in _with_groups(classes)}
    given = description.get("init_args") if isinstance(description, Mapping) else None
    if not isinstance(given, Mapping):
        raise InputError("this is no description of an object", value=type(description).__name__)
    return {name: _built(value, known) for name, value in given.items() if not _lost(value)}


def _with_groups(classes: Iterable[type]) -> list[type]:
    """The classes, and the groups of options that their modules define for them."""
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
            "a class is named that is not registered, so it is not built",
            value=value["class_path"],
            hint="If you trust it, give the class: load_from_checkpoint(path, classes=[…])",
        )
    return cls(**arguments(value, known.values()))
