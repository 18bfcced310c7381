"""Tables of the configuration into dataclasses, by annotation; everything that is wrong is told at once."""

import dataclasses
import difflib
import json
import re
import sys
import types
import typing
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Table = dict[str, Any]

_BARE = re.compile(r"[A-Za-z0-9_\-]+").fullmatch
_WORDS = re.compile(r"(?<![\w${])[a-z_]+").findall  # "$user" and "{user}" are places for names, not a key


class Checked:
    """The base of dataclasses that check what the types of their keys can't say.

    Raises (when made):
        ValueError: with one argument for each of `problems`.
    """

    def __post_init__(self) -> None:
        if told := tuple(self.problems()):
            raise ValueError(*told)

    def problems(self) -> Iterable[str]:
        """Return what is wrong: "KEY: text" or "KEY, KEY: text".

        A text names every key that it depends on: it is not told if one of them is wrong already.
        """
        return ()

    def not_positive(self, *keys: str) -> Iterable[str]:
        """Return a problem for each of these keys whose number is 0 or less."""
        return [f"{key}: must be more than 0" for key in keys if getattr(self, key) <= 0]


def fill(cls: type[T], place: str, table: Table, problems: list[str], beside: Iterable[str] = ()) -> T | None:
    """Make a dataclass of the table at `place`, in which the keys `beside` may stand, too.

    None if anything is wrong with it, which is added to `problems`. The values are checked all the same: a key that is wrong or
    missing has its default, else an empty value, and what is said of it is left out.
    """
    before = len(problems)
    fields = {f.name: f for f in dataclasses.fields(typing.cast("Any", cls)) if f.init}
    hints = typing.get_type_hints(cls)
    values: Table = {}
    doubtful = unknown(place, table, fields, problems, beside)
    for key in (key for key in table if key in fields):
        where = at(place, key)
        try:
            if not dataclasses.is_dataclass(hints[key]):
                values[key] = checked(hints[key], table[key])
            elif inner := fill(typing.cast("type[Any]", hints[key]), where, as_table(table[key]), problems):
                values[key] = inner
            else:
                doubtful.add(key)
        except ValueError as error:
            problems += [f"{where}: {text}" for text in error.args]
            doubtful.add(key)
    for key, f in fields.items():
        if key not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            if key not in doubtful:
                problems.append(f"{at(place, key)}: missing")
            doubtful.add(key)
            values[key] = _empty(hints[key])
    try:
        made = cls(**values)
    except ValueError as error:
        told = error.args or ("can not be used",)
        problems += [f"{place}.{problem}" for problem in told if doubtful.isdisjoint(_WORDS(problem))]
        return None
    return made if len(problems) == before else None


def unknown(place: str, table: Table, known: Iterable[str], problems: list[str], beside: Iterable[str] = ()) -> set[str]:
    """Add the keys that are not known to `problems`; return those that may have been meant."""
    known, meant = set(known), set[str]()
    for key in (key for key in table if key not in known):
        near = _near(key, (*known, *beside))
        problems.append(f"{at(place, key)}: unknown key{_did_you_mean(near)}")
        meant.update(near)
    return meant - table.keys()


def as_table(value: object) -> Table:
    """Return a table, to be changed by the caller.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, dict):
        return dict(typing.cast("Table", value))
    raise ValueError("must be a table")


def checked(hint: Any, value: Any) -> Any:  # noqa: ANN401 - TOML's values and a plug-in's annotations are what they are
    """Check a TOML value against an annotation.

    Raises:
        ValueError: with the texts to show.
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
            return _items(arguments[0], typing.cast("list[object]", value))
        raise ValueError("must be a list, in brackets")
    if hint is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:  # neither inf nor nan
        return float(value)
    if type(value) is hint and hint is not float:
        return value
    names = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
    raise ValueError(f"must be {names.get(hint, hint)}")


def _items(hint: Any, values: list[object]) -> tuple[Any, ...]:  # noqa: ANN401 - as `checked`
    items: list[Any] = []
    problems: list[str] = []
    for number, value in enumerate(values, 1):
        try:
            items.append(checked(hint, value))
        except ValueError as error:
            problems.append(f"item {number} {error}")
    if problems:
        raise ValueError(*problems)
    return tuple(items)


def _empty(hint: Any) -> Any:  # noqa: ANN401 - as `checked`
    """Return a value for a key that has none."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return arguments[0]
    return None if origin in (types.UnionType, typing.Union) else (origin or hint)()


def strings(value: object) -> list[str]:
    """Return those items of a list that are strings, none of what is no list."""
    items = typing.cast("list[object]", value) if isinstance(value, list) else []
    return [item for item in items if isinstance(item, str)]


def names(value: object) -> set[str]:
    """Return the keys of a table, none of what is no table."""
    return set(typing.cast("Table", value)) if isinstance(value, dict) else set()


def at(place: str, key: str) -> str:
    """Return the place of a key in a table, as TOML has it."""
    return f"{place}{'.' if place else ''}{key if _BARE(key) else quoted(key)}"


def quoted(key: str) -> str:
    """Return a key in quotes."""
    return json.dumps(key, ensure_ascii=False)


def nearest(name: str, known: Iterable[object]) -> str:
    """Return " (did you mean ...?)" with the known name that is most like this one, "" if none is."""
    return _did_you_mean(_near(name, known))


def _near(name: str, known: Iterable[object]) -> list[str]:
    return difflib.get_close_matches(name, [str(k) for k in known], n=1)


def _did_you_mean(near: list[str]) -> str:
    return f" (did you mean {near[0]!r}?)" if near else ""
