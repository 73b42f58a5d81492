"""Settings, declared once: dataclasses whose fields say type, range, choices and help.

pydantic checks the values when a record is made, and command-line options are made from the same fields. pydantic is
imported at the first check, so neither `import diffretriever_pyserini` nor `--help` loads it.
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
# Beyond these limits C libraries run out of memory or overflow.
Threads = Annotated[int, Ge(1), Le(1024)]
Batch = Annotated[int, Ge(1), Le(1 << 16)]
Masks = Annotated[int, Ge(1), Le(1024)]
Effort = Annotated[int, Ge(1), Le(1_000_000)]
RankConstant = Annotated[int, Ge(1), Le(10_000)]  # above, the nine decimals of a run no longer tell ranks apart
Weight = Annotated[float, Ge(0)]
AboveZero = Annotated[float, Gt(0)]
OnError = Literal["stop", "skip"]

_LIMITS: dict[type, str] = {Ge: "at least", Gt: "above", Le: "at most", Lt: "below"}
_NOUNS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}


@dataclass(frozen=True, slots=True)
class Help:
    """What ``--help`` shows for a setting, in addition to its range and default.

    Attributes
    ----------
    text : one line.
    metavar : placeholder for the value in the help.
    option : name of the command-line option, if it differs from the field's.
    default : what happens when the setting is None.
    group : title of the option group that starts with this setting; later settings belong to it, up to the next title.
    """

    text: str
    metavar: str | None = None
    option: str | None = None
    default: str | None = None
    group: str | None = None


def validate(record: Any, error: type[DiffRetrieverError] = ConfigError, where: str = "") -> None:
    """Check the fields of a dataclass instance by their annotations; called by its ``__post_init__``.

    Harmless spellings are converted, even in a frozen record: NumPy numbers, 64.0 for a whole number, a number as text
    ("1e-4", which YAML reads as a string), a list for a tuple. True is not a number; NaN and infinity are refused.

    Raises
    ------
    DiffRetrieverError
        Of the class ``error``: one sentence that names each wrong field, its value and what it must be. It begins with
        ``where`` (a file, a model).
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
        names = dict.fromkeys(str(item["loc"][0]) for item in problem.errors(include_url=False))
        wrong = "; ".join(f"{name}={values[name]!r:.80} must be {requirement(hints[name])}" for name in names)
        raise error(f"{_prefix(where)}{wrong}.") from problem


def record_from[Record](record: type[Record], values: Mapping[str, Any], path: Path | str, remedy: str) -> Record:
    """The dataclass instance that ``path`` holds as ``values``, checked as by :func:`validate`.

    Raises
    ------
    InputError
        When a field is missing, unknown or invalid. The message names the file and ends with ``remedy``.
    """
    try:
        fields = checked(record, values, InputError)
        for field in dataclasses.fields(record):  # type: ignore[arg-type]
            if field.name not in fields and _default(field) is dataclasses.MISSING:
                raise InputError(f"{field.name} is missing")
        return record(**fields)
    except InputError as problem:
        raise InputError(f"{path}: damaged ({str(problem).rstrip('.')}); {remedy}.") from problem


def check_names(
    record: type, names: Collection[str], error: type[DiffRetrieverError] = ConfigError, where: str = ""
) -> None:
    """Raise ``error`` for a name that is not a field of ``record``; the message suggests the nearest field."""
    known = [field.name for field in dataclasses.fields(record)]
    for name in names:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}."
            raise error(f"{_prefix(where)}unknown setting {name!r}; {hint}")


def requirement(hint: Any) -> str:
    """What a value of the annotated type ``hint`` must be, in words: "a whole number of at least 1"."""
    kind, limits, parts = _parse_hint(hint)
    if kind is Any:
        return "anything"
    if kind is Literal:
        return f"one of {', '.join(map(repr, parts))}"
    if kind is tuple:
        return f"a list in which each value is {requirement(parts[0])}"
    if get_origin(hint) is not None and issubclass(kind, Mapping):
        return f"a mapping from {requirement(parts[0])} to {requirement(parts[1])}"
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        names = (f"{field.name} ({requirement(_hints(kind)[field.name])})" for field in dataclasses.fields(kind))
        return f"a mapping with {', '.join(names)}"
    noun = _NOUNS.get(kind, f"of type {kind.__name__}")
    return f"{noun} {'of ' if limits.startswith('at ') else ''}{limits}".rstrip()


def parser_of(hint: Any) -> Callable[[str], Any]:
    """A ``type`` for argparse: it converts text to the annotated type ``hint``, or raises an error."""

    def parse(text: str) -> Any:
        from pydantic import ValidationError

        try:
            return _adapter(hint).validate_python(text)
        except ValidationError as problem:
            raise argparse.ArgumentTypeError(f"{text!r} must be {requirement(hint)}") from problem

    return parse


def parsed(value: Any, hint: Any, error: type[DiffRetrieverError], name: str) -> Any:
    """``value`` as the annotated type ``hint``; else raise ``error``, which says what ``name`` must be."""
    from pydantic import ValidationError

    try:
        return _adapter(hint).validate_python(value)
    except ValidationError as problem:
        raise error(f"{name}={value!r:.80} must be {requirement(hint)}.") from problem


def add_options(
    parser: Any, record: type, skip: Collection[str] = (), groups: dict[str, Any] | None = None, over_file: bool = False
) -> dict[str, Any]:
    """Add an option for each field of ``record`` to an argparse parser or group; returns its groups by title.

    Parameters
    ----------
    skip : fields that get no option; fields without :class:`Help` get none either.
    groups : existing groups, by title.
    over_file : the options override a file's settings: an option that is not given is None, none is required, and a
        boolean option takes a value. Otherwise a field that is True gets an option ``--no-...``.
    """
    groups = {} if groups is None else groups
    title = None
    for field in dataclasses.fields(record):
        hint = _hints(record)[field.name]
        help_ = _help_of(hint)
        title = help_.group if help_ is not None and help_.group is not None else title
        if help_ is None or field.name in skip:
            continue
        target = parser
        if title is not None:
            target = groups[title] if title in groups else groups.setdefault(title, parser.add_argument_group(title))
        default = _default(field)
        details: dict[str, Any] = {"dest": _dest(field.name, help_)}
        flag = f"--{details['dest'].replace('_', '-')}"
        if _parse_hint(hint)[0] is bool and not over_file:
            flag = flag.replace("--", "--no-", 1) if default else flag
            details |= {"action": "store_false" if default else "store_true", "help": help_.text.replace("%", "%%")}
        else:
            details |= _argparse_type(hint, help_) | {"help": _help_text(hint, help_, default)}
            if default is dataclasses.MISSING:
                details["required"] = not over_file
            elif not over_file:
                details["default"] = default
        target.add_argument(flag, **details)
    return groups


def given(record: type, arguments: argparse.Namespace) -> dict[str, Any]:
    """Values that the user gave to the options of :func:`add_options`, by field; None counts as not given."""
    values = {}
    for name, hint in _hints(record).items():
        help_ = _help_of(hint)
        value = getattr(arguments, _dest(name, help_), None) if help_ is not None else None
        if value is not None:
            values[name] = value
    return values


def from_arguments(record: type, arguments: argparse.Namespace, **more: Any) -> Any:
    """The ``record`` that the options of :func:`add_options` describe; ``more`` sets further fields."""
    return record(**given(record, arguments) | more)


def _argparse_type(hint: Any, help_: Help) -> dict[str, Any]:
    """How argparse reads an option: type, choices, number of values and metavar."""
    kind, _, parts = _parse_hint(hint)
    if kind is tuple:
        return {"nargs": "+"} | _argparse_type(parts[0], help_)
    if kind is Literal and all(isinstance(choice, str) for choice in parts):
        return {"choices": parts}
    if kind is Literal:
        return {"type": parser_of(hint), "metavar": "{" + ",".join(map(str, parts)) + "}"}
    if kind is bool:
        return {"type": parser_of(hint), "metavar": "{true,false}"}
    metavar = {"metavar": help_.metavar or {int: "N", float: "X"}.get(kind)}
    if kind in (int, float):
        return {"type": parser_of(hint)} | metavar
    return metavar | ({"type": parser_of(Path)} if kind is Path else {})


def _help_text(hint: Any, help_: Help, default: Any) -> str:
    """The text, with the range and the default."""
    facts = [_parse_hint(hint)[1]]
    if help_.default is not None:
        facts.append(f"default: {help_.default}")
    elif default not in (dataclasses.MISSING, None, (), ""):
        facts.append(f"default: {str(default).lower() if isinstance(default, bool) else default}")
    details = "; ".join(filter(None, facts))
    text = f"{help_.text} ({details})" if details else help_.text
    return text.replace("%", "%%")


def _default(field: dataclasses.Field) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _dest(name: str, help_: Help) -> str:
    return (help_.option or name).replace("-", "_")


def _help_of(hint: Any) -> Help | None:
    return next((mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Help)), None)


def _prefix(where: str) -> str:
    return f"{where}: " if where else ""


@cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record, include_extras=True)


def _parse_hint(hint: Any) -> tuple[Any, str, tuple[Any, ...]]:
    """(type, limits in words, type arguments) of a hint without its ``None``; choices are those of ``Literal``."""
    limits: list[str] = []
    while True:
        origin = get_origin(hint)
        if origin is Annotated:
            hint, *marks = get_args(hint)
            ends = {type(mark): dataclasses.astuple(mark)[0] for mark in marks if type(mark) in _LIMITS}
            if hint is int and ends.keys() == {Ge, Le}:
                limits.append(f"between {ends[Ge]:,} and {ends[Le]:,}")
            else:
                limits += [f"{_LIMITS[kind]} {end}" for kind, end in ends.items()]
        elif origin in (Union, UnionType):
            hint = next(option for option in get_args(hint) if option is not type(None))
        else:
            return origin or hint, " and ".join(limits), get_args(hint)


@cache
def _fields_adapter(record: type) -> Any:
    """pydantic's validator of a dict of ``record``'s fields, any of which may be missing."""
    from pydantic import TypeAdapter

    typed_dict: Any = TypedDict
    fields = typed_dict(record.__name__, {n: _lenient(hint) for n, hint in _hints(record).items()}, total=False)
    fields.__pydantic_config__ = _pydantic_config()
    return TypeAdapter(fields)


def _adapter(hint: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_lenient(hint), config=_pydantic_config())


def _pydantic_config() -> Any:
    from pydantic import ConfigDict

    return ConfigDict(allow_inf_nan=False, coerce_numbers_to_str=True)


def _lenient(hint: Any) -> Any:
    """``hint`` that accepts harmless spellings, and refuses booleans as numbers, at each of its leaves."""
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
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, bool) and kind in (int, float):
        raise ValueError("true and false are not numbers")
    if isinstance(value, set | frozenset | bytes | bytearray):
        raise ValueError("sets have no order, and bytes are not text")
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        if unknown := value.keys() - {field.name for field in dataclasses.fields(kind)}:
            raise ValueError(f"unknown: {sorted(map(str, unknown))}")
        value = kind(**value)  # type: ignore[operator]
    if kind is Path and value == "":
        raise ValueError("an empty name would be the current directory")
    if kind is Literal:
        if isinstance(value, float) and value.is_integer() and int(value) in parts:
            value = int(value)
        value = next((choice for choice in parts if str(choice) == str(value)), None)  # pydantic takes True for 1
    if kind is tuple and isinstance(value, str | os.PathLike):
        return (value,)
    return os.fspath(value) if kind is str and isinstance(value, os.PathLike) else value
