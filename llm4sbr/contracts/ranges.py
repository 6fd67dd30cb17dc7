"""Number types with a range: the command line refuses other values, and so do the classes that use them."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, Union, get_args, get_origin

from jsonargparse.typing import register_type

from llm4sbr.contracts.errors import InputError


class OutOfRange(ValueError):
    """A number is out of the range of its type.

    Args:
        problem: Message.
        must: What the number must be.
        given: Refused value.
    """

    def __init__(self, problem: str, *, must: str, given: Any) -> None:
        super().__init__(problem)
        self.must, self.given = must, given


if TYPE_CHECKING:
    PositiveInt: TypeAlias = int
    NonNegativeInt: TypeAlias = int
    PositiveFloat: TypeAlias = float
    NonNegativeFloat: TypeAlias = float
    Share: TypeAlias = float
    PositiveShare: TypeAlias = float
    Rate: TypeAlias = float
    NormOrder: TypeAlias = float
else:

    def _restricted(name: str, base: type, text: str, holds: Callable[[Any], bool]) -> type:
        """Make a type that converts a value to `base` and refuses it out of range.

        Its values are plain numbers, which a checkpoint and a YAML file can hold.
        """

        def new(cls: type, value: Any) -> Any:
            try:
                number = base(value)
            except (TypeError, ValueError):
                number = math.nan
            rounded = base is int and not isinstance(value, int | str)
            if rounded or isinstance(value, bool) or not holds(number):
                raise OutOfRange(f"{value} is not {text}", must=text, given=value)
            return number

        made = type(
            name, (base,), {"__new__": new, "__doc__": f"{text[0].upper()}{text[1:]}.", "_text": text}
        )
        made.__module__ = __name__
        # The values are no instances of the type, so each is converted again, which changes nothing.
        register_type(made, base, made, type_check=lambda value, kind: False)
        return made

    PositiveInt = _restricted("PositiveInt", int, "a whole number of at least 1", lambda v: v >= 1)
    NonNegativeInt = _restricted("NonNegativeInt", int, "a whole number of at least 0", lambda v: v >= 0)
    PositiveFloat = _restricted("PositiveFloat", float, "a finite number above 0", lambda v: 0 < v < math.inf)
    NonNegativeFloat = _restricted(
        "NonNegativeFloat", float, "a finite number of at least 0", lambda v: 0 <= v < math.inf
    )
    Share = _restricted("Share", float, "a number from 0.0 to 1.0", lambda v: 0 <= v <= 1)
    PositiveShare = _restricted(
        "PositiveShare", float, "a number above 0.0 and up to 1.0", lambda v: 0 < v <= 1
    )
    NormOrder = _restricted("NormOrder", float, "a number of at least 1 or infinity", lambda v: v >= 1)
    Rate = _restricted("Rate", float, "a number of at least 0.0 and below 1.0", lambda v: 0 <= v < 1)


class Ranged:
    """Base class whose constructor refuses numbers out of the ranges in its annotations.

    The check runs before the constructor, for its own arguments and for those that it hands to a parent in
    ``**kwargs``.

    Raises:
        InputError: If an argument is out of its range; the message names it.

    >>> class Window(Ranged):
    ...     def __init__(self, clicks: PositiveInt = 3) -> None: ...
    >>> Window(0)
    Traceback (most recent call last):
    llm4sbr.contracts.errors.InputError: clicks must be a whole number of at least 1 (got 0)
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the arguments."""
        made = super().__new__(cls)
        check_arguments(cls, given(cls, args, kwargs) or {})
        return made


def given(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Bind the arguments of a constructor to their names, without defaults; None if they do not fit.

    The constructor itself raises the error then. Copying and unpickling pass no arguments.
    """
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    try:
        bound = signature.bind(None, *args, **kwargs)
    except TypeError:
        return None
    found: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:  # without self
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            found.update(value)
        else:
            found[name] = value
    return found


def check_arguments(called: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Check arguments against the ranges in the annotations of a function or a constructor.

    Args:
        called: Function or class.
        values: Arguments by name; those without a range are not checked.

    Raises:
        InputError: If an argument is out of its range; the message names it.
    """
    hints = evaluated_annotations(called)
    for name, value in values.items():
        if name not in hints or _fits(value, hints[name]):
            continue
        texts = dict.fromkeys(kind._text for kind in _ranges(hints[name]))
        several = " each" if get_origin(hints[name]) is not None and isinstance(value, list | tuple) else ""
        if several and not value:
            raise InputError(f"{name} must not be empty", value=value)
        raise InputError(f"{name} must{several} be {' or '.join(texts)}", value=value)


def check_fields(options: Any) -> None:
    """Check the fields of an option group; its ``__post_init__`` calls it.

    A group can't derive from `Ranged`: jsonargparse shows only a data class without other bases as a group.

    Args:
        options: Instance of a data class.

    Raises:
        InputError: If a field is out of its range; the message names it.
    """
    check_arguments(type(options), vars(options))


@cache
def evaluated_annotations(called: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of a function, or of a constructor and its parents', evaluated; others are left out."""
    if not isinstance(called, type):
        return _evaluated(called, vars(sys.modules[called.__module__]))
    found: dict[str, Any] = {}
    for part in reversed(called.__mro__):
        source = part if is_dataclass(part) else vars(part).get("__init__")
        if source is not None:
            found |= _evaluated(source, vars(sys.modules.get(part.__module__, sys)))
    return found


def _evaluated(source: Any, names: dict[str, Any]) -> dict[str, Any]:
    found = {}
    for name, annotation in getattr(source, "__annotations__", {}).items():
        if isinstance(annotation, str):
            try:
                annotation = eval(annotation, names)
            except Exception:  # a name that is imported for type checkers only
                continue
        found[name] = annotation
    return found


def _ranges(hint: Any) -> list[Any]:
    """The number types with a range inside an annotation."""
    if isinstance(hint, type) and hasattr(hint, "_text"):
        return [hint]
    return [kind for part in get_args(hint) for kind in _ranges(part)]


def _fits(value: Any, hint: Any) -> bool:
    if not _ranges(hint):
        return True
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(
            value is None if part is type(None) else _ranges(part) != [] and _fits(value, part)
            for part in get_args(hint)
        )
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = get_args(hint)[0]
        return isinstance(value, Sequence) and len(value) > 0 and all(_fits(part, inner) for part in value)
    if isinstance(value, bool) or not isinstance(value, Integral if issubclass(hint, int) else Real):
        return False
    try:
        hint(int(value) if isinstance(value, Integral) else float(value))
    except ValueError:
        return False
    return True
