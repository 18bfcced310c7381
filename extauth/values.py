"""Values of the configuration against the annotations of the dataclasses that hold them."""

import difflib
import sys
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal


def checked(hint: Any, value: Any) -> Any:  # noqa: ANN401 - TOML's values and a plug-in's annotations are what they are
    """Check a TOML value against an annotation.

    Raises:
        ValueError: with the text to show.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments and type(value) is not bool:
            return value
        raise ValueError(
            f"must be {' or '.join(f'{a!r}' for a in arguments)}{nearest(str(value), arguments)}".replace("'", '"')
        )
    if origin in (types.UnionType, typing.Union):
        return checked(next(a for a in arguments if a is not types.NoneType), value)
    if origin is tuple:
        if isinstance(value, list):
            return tuple(checked(arguments[0], item) for item in typing.cast("list[object]", value))
        raise ValueError("must be a list")
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # neither inf nor nan
        return float(value)
    if type(value) is hint and hint is not float:
        return value
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    raise ValueError(f"must be {names.get(hint, hint)}")


def nearest(name: str, known: Iterable[object]) -> str:
    """Return " (did you mean ...?)" with the known name that is most like this one, "" if none is."""
    near = difflib.get_close_matches(name, [str(k) for k in known], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
