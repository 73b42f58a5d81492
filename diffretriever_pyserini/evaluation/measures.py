"""Measures by name, checked before ir-measures and the C code below it see them, and their values query by query."""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..corpora.qrels import GRADES
from ..errors import InputError, reason

_NAME = re.compile(r"(?P<name>\w+)\s*(\((?P<settings>.*)\))?\s*(@\s*(?P<at>[^@()]+))?")
# trec_eval's names of measures that have another name, or a cut-off in another place, in ir-measures.
_TREC_CUT = {"ndcg_cut": "nDCG", "recall": "R", "map_cut": "AP", "P": "P", "success": "Success"}
_TREC_WHOLE = {"ndcg": "nDCG", "map": "AP", "recip_rank": "RR", "bpref": "Bpref"}
_TREC_EVAL = re.compile(rf"(?P<name>{'|'.join(_TREC_CUT)})[._](?P<at>\d+)")
_CUTOFFS = range(1, 1 << 31)
_EXAMPLES = "write for instance nDCG@10, R@100, RR@10, AP, RR(rel=2)@10"
_ALIKE = {"cutoff", "rel"}  # settings of measures that ir-measures can compute together without mixing them up
_HIGHEST_OF_GDEVAL = 4  # grade that the script for ERR and exponential gains takes


def parse_measure(text: str) -> Any:
    """The ir-measures object of a name such as nDCG@10, RR(rel=2)@10 or RBP(p=0.5,rel=1), under any of its aliases.

    Their own parser needs `ast.Num`, which Python 3.14 no longer has, and lets through what aborts the process.

    Raises
    ------
    InputError
        For an unknown name, a setting that it does not have or that is out of range, and for a measure that nothing
        that is installed can compute.
    """
    from ir_measures.measures import registry

    match = _NAME.fullmatch(_of_trec_eval(text.strip()))
    if not match or match["name"] not in registry:
        raise InputError(f"unknown measure '{text}'; {_near(text, list(registry))}{_EXAMPLES}.")
    measure = registry[match["name"]]
    settings = _settings(text, match["settings"] or "")
    if match["at"]:
        if measure.AT_PARAM not in measure.SUPPORTED_PARAMS:
            raise InputError(f"measure '{text}': {match['name']} takes no cut-off; write {match['name']}.")
        settings[measure.AT_PARAM] = _literal(text, match["at"])
    for name, value in settings.items():
        settings[name] = _checked(text, measure, name, value)
    measure = measure(**settings)
    for name, kind in measure.SUPPORTED_PARAMS.items():
        if kind.required and name not in measure.params:
            example = {"cutoff": "@10", "recall": "@0.1"}.get(name, f"({name}=4)")
            raise InputError(f"measure '{text}' needs a {_what(name)}: for instance {match['name']}{example}.")
    _check_available(text, measure)
    return measure


def _of_trec_eval(text: str) -> str:
    """ir-measures' name of one that trec_eval has (``ndcg_cut.10``, ``recall_100``, ``map``); else ``text``."""
    cut = _TREC_EVAL.fullmatch(text)
    return f"{_TREC_CUT[cut['name']]}@{cut['at']}" if cut else _TREC_WHOLE.get(text, text)


def _near(text: str, names: list[str]) -> str:
    lower = {name.lower(): name for name in reversed(names)}
    close = difflib.get_close_matches(re.split(r"\W", text.strip().lower())[0], lower, 1, 0.7)
    return f"did you mean {lower[close[0]]}? " if close else ""


def _settings(text: str, written: str) -> dict[str, Any]:
    """The settings within the brackets, as in a call of Python."""
    try:
        call = ast.parse(f"f({written})", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InputError(f"measure '{text}': ({written}) cannot be read; {_EXAMPLES}.") from error
    if not isinstance(call, ast.Call) or call.args or any(one.arg is None for one in call.keywords):
        raise InputError(f"measure '{text}': ({written}) must be names and values, as in (rel=2).")
    return {str(one.arg): _literal(text, ast.unparse(one.value)) for one in call.keywords}


def _literal(text: str, written: str) -> Any:
    try:
        return ast.literal_eval(written.strip())
    except (SyntaxError, ValueError) as error:
        raise InputError(f"measure '{text}': {written} is no number.") from error


def _checked(text: str, measure: Any, name: str, value: Any) -> Any:
    """``value`` of the setting ``name`` as ir-measures wants it."""
    kind = measure.SUPPORTED_PARAMS.get(name)
    if kind is None:
        known = ", ".join(measure.SUPPORTED_PARAMS) or "none"
        raise InputError(f"measure '{text}': there is no setting {name!r}; {measure.NAME} has: {known}.")
    if kind.dtype is float and type(value) is int:
        value = float(value)
    if kind.dtype is int and type(value) is not int:
        raise InputError(f"measure '{text}': {_what(name)} {value!r} is not a whole number.")
    if not kind.validate(value):
        choices = f"one of {', '.join(map(repr, kind.choices))}" if isinstance(kind.choices, list) else kind.desc
        raise InputError(f"measure '{text}': {name}={value!r} cannot be; it is: {choices}.")
    low, high = _range(measure, name)
    numbers = [*value.keys(), *value.values()] if isinstance(value, dict) else [value]
    for number in numbers:
        if isinstance(value, dict) and type(number) is not int:
            raise InputError(f"measure '{text}': {name} must be whole numbers, not {number!r}.")
        if isinstance(number, int | float) and not low <= number <= high:
            raise InputError(f"measure '{text}': {_what(name)} {number} is out of range: from {low:,} to {high:,}.")
    if name == "recall" and abs(100 * value - round(100 * value)) > 1e-9:  # all digits after the second would be lost
        raise InputError(f"measure '{text}': recall {value} must have two decimals at most.")
    return value


def _what(name: str) -> str:
    return "cut-off" if name == "cutoff" else name


def _range(measure: Any, name: str) -> tuple[float, float]:
    if name == "cutoff":
        return _CUTOFFS[0], _CUTOFFS[-1]
    if name in ("recall", "p", "alpha") or (name == "beta" and measure.NAME != "SetF"):
        return 0, 1
    return (-GRADES if name in ("gains", "min_rel") else 0), GRADES


def _check_available(text: str, measure: Any) -> None:
    import ir_measures

    able = [one for one in ir_measures.DefaultPipeline.providers if one.supports(measure)]
    if not able:
        takes = {name: kind.desc for name, kind in measure.SUPPORTED_PARAMS.items() if name not in measure.params}
        more = "; ".join(f"{name}, {desc}" for name, desc in takes.items())
        raise InputError(
            f"measure '{text}': ir-measures computes it in no such form"
            + (f"; more settings are: {more}." if more else ".")
        )
    if not any(one.is_available() for one in able):
        remedy = " or ".join(one.install_instructions() or one.NAME for one in able)
        raise InputError(f"measure '{text}' needs a package that is not installed: {remedy}")


def values(
    measures: Sequence[Any], qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[Any, str, float]]:
    """(measure, query id, value) of ``measures``, all different, for every query of ``qrels``.

    Raises
    ------
    InputError
        Where ir-measures fails; the message names the measure.
    """
    highest = max((grade for grades in qrels.values() for grade in grades.values()), default=0)
    for one in measures:
        if highest > _HIGHEST_OF_GDEVAL and (one.NAME == "ERR" or one.params.get("dcg") == "exp-log2"):
            raise InputError(f"measure '{one}' takes grades up to {_HIGHEST_OF_GDEVAL}; the judgements have {highest}.")
    alike = [one for one in measures if one.params.keys() <= _ALIKE]
    for some in (alike, *([one] for one in measures if one not in alike)):
        if some:
            yield from _together(some, qrels, run)


def _together(
    measures: Sequence[Any], qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> list[tuple[Any, str, float]]:
    import ir_measures

    try:
        found = [(one.measure, one.query_id, float(one.value)) for one in ir_measures.iter_calc(measures, qrels, run)]
        if bad := next((measure for measure, _, value in found if not math.isfinite(value)), None):
            raise ValueError(f"{bad} is not a number")
        return found
    except Exception as error:  # of any of their packages, some with a script of its own
        if len(measures) > 1:
            return [one for measure in measures for one in _together([measure], qrels, run)]
        raise InputError(
            f"measure '{measures[0]}' cannot be computed for this run and these judgements: "
            f"ir-measures says {reason(error)}"
        ) from error
