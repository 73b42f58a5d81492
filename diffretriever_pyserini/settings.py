"""Settings, declared once: dataclasses whose fields say type, range, choices and help.

A value is checked by pydantic when its record is made, and command-line options are made from the same fields. pydantic
is imported at the first check, so neither `import diffretriever_pyserini` nor `--help` loads it.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from .errors import ConfigError, DiffRetrieverError, InputError

Count = Annotated[int, Ge(1)]
CountFrom0 = Annotated[int, Ge(0)]
# Beyond these numbers libraries in C run out of memory, or take them for others.
Threads = Annotated[int, Ge(1), Le(1024)]
Batch = Annotated[int, Ge(1), Le(1 << 16)]
Masks = Annotated[int, Ge(1), Le(1024)]
Effort = Annotated[int, Ge(1), Le(1_000_000)]
Weight = Annotated[float, Ge(0)]
AboveZero = Annotated[float, Gt(0)]
OnError = Literal["stop", "skip"]

_LIMITS: dict[type, str] = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


@dataclass(frozen=True, slots=True)
class Help:
    """What ``--help`` says of a setting, beside its range and its default.

    Attributes
    ----------
    text : one line.
    metavar : stands for the value in the help.
    option : name of the command-line option, where it is not the field's.
    default : what happens where the setting is None.
    group : title of the group of options that the setting belongs to, and those after it up to the next title.
    """

    text: str
    metavar: str | None = None
    option: str | None = None
    default: str | None = None
    group: str | None = None


def validate(record: Any, error: type[DiffRetrieverError] = ConfigError, where: str = "") -> None:
    """Check the fields of a dataclass instance by their annotations; called by its ``__post_init__``.

    Harmless spellings are replaced by what they mean, also in a frozen record: NumPy's numbers, 64.0 for a whole
    number, text of a number ("1e-4", which YAML does not read as one), a list for a tuple. True is no number; NaN and
    infinity are refused.

    Raises
    ------
    DiffRetrieverError
        Of the class ``error``: one sentence that names each wrong field, its value and what it must be; ``where``
        (a file, a model) goes before it.
    """
    values = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    for name, value in checked(type(record), values, error, where).items():
        object.__setattr__(record, name, value)


def checked(
    record: type, values: Mapping[str, Any], error: type[DiffRetrieverError] = ConfigError, where: str = ""
) -> dict[str, Any]:
    """Some ``values`` of ``record``'s fields, checked and converted as by :func:`validate`."""
    from pydantic import ValidationError

    check_names(record, values, error, where)
    try:
        return _fields_adapter(record).validate_python(dict(values))
    except ValidationError as problem:
        hints = _hints(record)
        names = dict.fromkeys(str(one["loc"][0]) for one in problem.errors(include_url=False))
        wrong = "; ".join(f"{name}={values[name]!r:.80} must be {wanted(hints[name])}" for name in names)
        raise error(f"{_before(where)}{wrong}.") from problem


def record_from[Record](record: type[Record], values: Mapping[str, Any], path: Path, remedy: str) -> Record:
    """The dataclass instance that ``path`` holds as ``values``, checked as by :func:`validate`.

    Raises
    ------
    InputError
        Where a field is missing, unknown or no such value; it names the file and ends with ``remedy``.
    """
    try:
        found = checked(record, values, InputError)
        for field in dataclasses.fields(record):  # type: ignore[arg-type]
            if field.name not in found and _default(field) is dataclasses.MISSING:
                raise InputError(f"{field.name} is missing")
        return record(**found)
    except InputError as problem:
        raise InputError(f"{path}: damaged ({str(problem).rstrip('.')}); {remedy}.") from problem


def check_names(
    record: type, names: Collection[str], error: type[DiffRetrieverError] = ConfigError, where: str = ""
) -> None:
    """Raise ``error`` for a name that is no field of ``record``, with the nearest field."""
    known = [field.name for field in dataclasses.fields(record)]
    for name in names:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}."
            raise error(f"{_before(where)}unknown setting {name!r}; {hint}")


def wanted(hint: Any) -> str:
    """What a value of the annotated type ``hint`` must be, in words: "a whole number of at least 1"."""
    kind, limits, parts = _taken_apart(hint)
    if kind is Any:
        return "anything"
    if kind is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if kind is tuple:
        return f"a list, each {wanted(parts[0])}"
    if get_origin(hint) is not None and issubclass(kind, Mapping):
        return f"a mapping from {wanted(parts[0])} to {wanted(parts[1])}"
    noun = _NOUNS.get(kind, f"of type {kind.__name__}")
    return f"{noun} {'of ' if limits.startswith('at ') else ''}{limits}".rstrip()


def parser_of(hint: Any) -> Callable[[str], Any]:
    """A ``type`` for argparse: text to a value of the annotated type ``hint``, or an error that says what is wanted."""

    def parse(text: str) -> Any:
        from pydantic import ValidationError

        try:
            return _adapter(hint).validate_python(text)
        except ValidationError as problem:
            raise argparse.ArgumentTypeError(f"{text!r} must be {wanted(hint)}") from problem

    return parse


def parsed(value: Any, hint: Any, error: type[DiffRetrieverError], name: str) -> Any:
    """``value`` as the annotated type ``hint``, or ``error`` that says what ``name`` must be."""
    from pydantic import ValidationError

    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as problem:
        raise error(f"{name}={value!r:.80} must be {wanted(hint)}.") from problem


def add_options(
    parser: Any, record: type, skip: Collection[str] = (), groups: dict[str, Any] | None = None, over_file: bool = False
) -> dict[str, Any]:
    """Add an option for each field of ``record`` to an argparse parser or group; returns its groups by title.

    Parameters
    ----------
    skip : fields that get no option; fields without :class:`Help` get none either.
    groups : groups that are there already, by title.
    over_file : the options go over a file's settings: those that are not given are None, none is required, and one of
        true or false takes a value. Otherwise a field that is True gets an option ``--no-...``.
    """
    groups = {} if groups is None else groups
    title = None
    for field in dataclasses.fields(record):
        hint = _hints(record)[field.name]
        told = _help_of(hint)
        title = told.group if told is not None and told.group is not None else title
        if told is None or field.name in skip:
            continue
        target = parser
        if title is not None:
            target = groups[title] if title in groups else groups.setdefault(title, parser.add_argument_group(title))
        default = _default(field)
        details: dict[str, Any] = {"dest": _dest(field.name, told)}
        flag = f"--{details['dest'].replace('_', '-')}"
        if _taken_apart(hint)[0] is bool and not over_file:
            flag = flag.replace("--", "--no-", 1) if default else flag
            details |= {"action": "store_false" if default else "store_true", "help": told.text.replace("%", "%%")}
        else:
            details |= _reading(hint, told) | {"help": _help(hint, told, default)}
            if default is dataclasses.MISSING:
                details["required"] = not over_file
            elif not over_file:
                details["default"] = default
        target.add_argument(flag, **details)
    return groups


def given(record: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """Values of ``record``'s fields that the options of :func:`add_options` brought, by field; None is not given."""
    found = {}
    for name, hint in _hints(record).items():
        told = _help_of(hint)
        value = getattr(arguments, _dest(name, told), None) if told is not None else None
        if value is not None:
            found[name] = value
    return found


def from_arguments(record: type, arguments: argparse.Namespace, **more: Any) -> Any:
    """The ``record`` that the options of :func:`add_options` ask for, ``more`` of its fields set beside them."""
    return record(**given(record, arguments) | more)


def _reading(hint: Any, told: Help) -> dict[str, Any]:
    """How argparse reads an option: type, choices, number of values and metavar."""
    kind, _, parts = _taken_apart(hint)
    if kind is tuple:
        return {"nargs": "+"} | _reading(parts[0], told)
    if kind is Literal and all(isinstance(one, str) for one in parts):
        return {"choices": parts}
    if kind is Literal:
        return {"type": parser_of(hint), "metavar": "{" + ",".join(map(str, parts)) + "}"}
    if kind is bool:
        return {"type": parser_of(hint), "metavar": "{true,false}"}
    metavar = {"metavar": told.metavar or {int: "N", float: "X"}.get(kind)}
    if kind in (int, float):
        return {"type": parser_of(hint)} | metavar
    return metavar | ({"type": parser_of(Path)} if kind is Path else {})


def _help(hint: Any, told: Help, default: Any) -> str:
    """The text, with the range and the default."""
    facts = [_taken_apart(hint)[1]]
    if told.default is not None:
        facts.append(f"default: {told.default}")
    elif default not in (dataclasses.MISSING, None, (), ""):
        facts.append(f"default: {str(default).lower() if isinstance(default, bool) else default}")
    added = "; ".join(filter(None, facts))
    return f"{told.text} ({added})".replace("%", "%%") if added else told.text.replace("%", "%%")


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _dest(name: str, told: Help) -> str:
    return (told.option or name).replace("-", "_")


def _help_of(hint: Any) -> Help | None:
    return next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Help)), None)


def _before(where: str) -> str:
    return f"{where}: " if where else ""


@cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record, include_extras=True)


def _taken_apart(hint: Any) -> tuple[Any, str, tuple[Any, ...]]:
    """(type, limits in words, type arguments) of a hint without its ``None``; choices are those of ``Literal``."""
    limits: list[str] = []
    while True:
        origin = get_origin(hint)
        if origin is Annotated:
            hint, *marks = get_args(hint)
            ends = {type(one): dataclasses.astuple(one)[0] for one in marks if type(one) in _LIMITS}
            if hint is int and ends.keys() == {Ge, Le}:
                limits.append(f"between {ends[Ge]:,} and {ends[Le]:,}")
            else:
                limits += [f"{_LIMITS[kind]} {end}" for kind, end in ends.items()]
        elif origin in (Union, UnionType):
            hint = next(one for one in get_args(hint) if one is not type(None))
        else:
            return origin or hint, " and ".join(limits), get_args(hint)


@cache
def _fields_adapter(record: type) -> Any:
    """pydantic's validator of a dict of ``record``'s fields, of which any may be missing."""
    from pydantic import TypeAdapter

    typed_dict: Any = TypedDict
    fields = typed_dict(record.__name__, {n: _lenient(hint) for n, hint in _hints(record).items()}, total=False)
    fields.__pydantic_config__ = _strictness()
    return TypeAdapter(fields)


def _adapter(hint: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_lenient(hint), config=_strictness())


def _strictness() -> Any:
    from pydantic import ConfigDict

    return ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)


def _lenient(hint: Any) -> Any:
    """``hint`` with harmless spellings taken, and booleans refused as numbers, at each of its leaves."""
    from pydantic import BeforeValidator

    origin, parts = get_origin(hint), get_args(hint)
    if hint is type(None):
        return hint
    if origin is Annotated:
        return Annotated[_lenient(parts[0]), *parts[1:]]
    if origin in (Union, UnionType):
        return Union[tuple(map(_lenient, parts))]  # noqa: UP007
    if origin is tuple:
        hint = tuple[_lenient(parts[0]), ...]  # type: ignore[misc]
    elif origin is not None and origin is not Literal:
        hint = origin[tuple(map(_lenient, parts))]
    return Annotated[hint, BeforeValidator(lambda value: _plain(value, origin or hint, parts))]


def _plain(value: Any, kind: Any, parts: tuple[Any, ...]) -> Any:
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a number of NumPy's
        value = value.item()
    if isinstance(value, bool) and kind in (int, float):
        raise ValueError("true and false are no numbers")
    if isinstance(value, set | frozenset | bytes | bytearray):
        raise ValueError("sets have no order, and bytes are no text")
    if kind is Path and value == "":
        raise ValueError("an empty name would be the current directory")
    if kind is Literal:
        if isinstance(value, float) and value.is_integer() and int(value) in parts:
            value = int(value)
        value = next((one for one in parts if str(one) == str(value)), None)  # pydantic takes True for 1
    if kind is tuple and isinstance(value, str | os.PathLike):
        return (value,)
    return os.fspath(value) if kind is str and isinstance(value, os.PathLike) else value
