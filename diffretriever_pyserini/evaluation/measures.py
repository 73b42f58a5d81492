"""Measures by name, checked before ir-measures and its C code get them, and their values per query."""

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
# trec_eval's names, in lower case, of measures that ir-measures names or writes differently.
_TREC_CUT = {
    "ndcg_cut": "nDCG",
    "recall": "R",
    "map_cut": "AP",
    "p": "P",
    "success": "Success",
    "iprec_at_recall": "IPrec",
}
_TREC_WHOLE = {
    "recip_rank": "RR",
    "num_q": "NumQ",
    "num_ret": "NumRet",
    "num_rel": "NumRel",
    "num_rel_ret": "NumRelRet",
    "set_p": "SetP",
    "set_recall": "SetR",
    "set_map": "SetAP",
    "set_f": "SetF",
    "set_relative_p": "SetRelP",
}
_TREC_EVAL = re.compile(rf"(?P<name>{'|'.join(_TREC_CUT)})[._](?P<at>\d+(\.\d+)?)")
_CUTOFFS = range(1, 1 << 31)
_EXAMPLES = "write for instance nDCG@10, R@100, RR@10, AP, RR(rel=2)@10, or ndcg_cut_10 as in trec_eval"
_COMBINABLE = {"cutoff", "rel"}  # settings that ir-measures keeps apart when it computes several measures together
_MAX_GDEVAL_GRADE = 4  # of the script that computes ERR and exponential gains


def parse_measure(text: str) -> Any:
    """The ir-measures object of a name such as nDCG@10, RR(rel=2)@10, RBP(p=0.5,rel=1) or trec_eval's ndcg_cut_10.

    Case does not count, and a measure may be named by any of its aliases.
    ir-measures' own parser needs `ast.Num`, which Python 3.14 has removed, and accepts values that abort the process.

    Raises
    ------
    InputError
        For an unknown name, an unknown setting or one out of range, and for a measure that no installed package can
        compute.
    """
    from ir_measures.measures import registry

    match = _NAME.fullmatch(_ir_measures_name(text.strip()))
    names = {name.lower(): name for name in reversed(registry)}
    if not match or match["name"].lower() not in names:
        raise InputError(f"unknown measure '{text}'; {_near(text, names)}{_EXAMPLES}.")
    measure = registry[names[match["name"].lower()]]
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


def _ir_measures_name(text: str) -> str:
    """ir-measures' name for one of trec_eval's (``ndcg_cut.10``, ``recall_100``); any other ``text`` as is."""
    cut = _TREC_EVAL.fullmatch(text.lower())
    return f"{_TREC_CUT[cut['name']]}@{cut['at']}" if cut else _TREC_WHOLE.get(text.lower(), text)


def _near(text: str, names: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(
        re.split(r"\W", text.strip().lower())[0], [*names, *_TREC_CUT, *_TREC_WHOLE], 1, 0.7
    )
    return f"did you mean {names.get(close[0], close[0])}? " if close else ""


def _settings(text: str, written: str) -> dict[str, Any]:
    """The settings within the brackets, written as in a Python call."""
    try:
        call = ast.parse(f"f({written})", mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InputError(f"measure '{text}': ({written}) cannot be read; {_EXAMPLES}.") from error
    if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
        raise InputError(f"measure '{text}': ({written}) must be names and values, as in (rel=2).")
    return {str(keyword.arg): _literal(text, ast.unparse(keyword.value)) for keyword in call.keywords}


def _literal(text: str, written: str) -> Any:
    try:
        return ast.literal_eval(written.strip())
    except (SyntaxError, ValueError) as error:
        raise InputError(f"measure '{text}': {written} is not a number.") from error


def _checked(text: str, measure: Any, name: str, value: Any) -> Any:
    """``value`` of the setting ``name``, checked and in the type that ir-measures expects."""
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
        raise InputError(f"measure '{text}': {name}={value!r} is not allowed; allowed is {choices}.")
    low, high = _range(measure, name)
    numbers = [*value.keys(), *value.values()] if isinstance(value, dict) else [value]
    for number in numbers:
        if isinstance(value, dict) and type(number) is not int:
            raise InputError(f"measure '{text}': {name} must be whole numbers, not {number!r}.")
        if isinstance(number, int | float) and not low <= number <= high:
            raise InputError(f"measure '{text}': {_what(name)} {number} is out of range: from {low:,} to {high:,}.")
    if name == "recall" and abs(100 * value - round(100 * value)) > 1e-9:  # ir-measures drops further digits
        raise InputError(f"measure '{text}': recall {value} must have at most two decimals.")
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

    providers = [provider for provider in ir_measures.DefaultPipeline.providers if provider.supports(measure)]
    if not providers:
        unset = {name: kind.desc for name, kind in measure.SUPPORTED_PARAMS.items() if name not in measure.params}
        more = "; ".join(f"{name}, {desc}" for name, desc in unset.items())
        raise InputError(
            f"measure '{text}': ir-measures cannot compute it in this form"
            + (f"; more settings are: {more}." if more else ".")
        )
    if not any(provider.is_available() for provider in providers):
        remedy = " or ".join(provider.install_instructions() or provider.NAME for provider in providers)
        raise InputError(f"measure '{text}' needs a package that is not installed: {remedy}")


def values(
    measures: Sequence[Any], qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> Iterator[tuple[Any, str, float]]:
    """Yield (measure, query id, value) of distinct ``measures`` for every query of ``qrels``.

    Raises
    ------
    InputError
        Where ir-measures fails; the message names the measure.
    """
    highest = max((grade for grades in qrels.values() for grade in grades.values()), default=0)
    for measure in measures:
        by_gdeval = measure.NAME == "ERR" or measure.params.get("dcg") == "exp-log2"
        if by_gdeval and highest > _MAX_GDEVAL_GRADE:
            raise InputError(
                f"measure '{measure}' takes grades up to {_MAX_GDEVAL_GRADE}; the judgements have {highest}."
            )
    combinable = [measure for measure in measures if measure.params.keys() <= _COMBINABLE]
    for group in (combinable, *([measure] for measure in measures if measure not in combinable)):
        if group:
            yield from _compute(group, qrels, run)


def _compute(
    measures: Sequence[Any], qrels: Mapping[str, Mapping[str, int]], run: Mapping[str, Mapping[str, float]]
) -> list[tuple[Any, str, float]]:
    import ir_measures

    try:
        metrics = ir_measures.iter_calc(measures, qrels, run)
        computed = [(metric.measure, metric.query_id, float(metric.value)) for metric in metrics]
        if bad := next((measure for measure, _, value in computed if not math.isfinite(value)), None):
            raise ValueError(f"{bad} is not a number")
        return computed
    except Exception as error:  # ir-measures' providers raise errors of many types
        if len(measures) > 1:
            return [value for measure in measures for value in _compute([measure], qrels, run)]
        raise InputError(
            f"measure '{measures[0]}' cannot be computed for this run and these judgements: "
            f"ir-measures says {reason(error)}"
        ) from error
