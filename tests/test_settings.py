"""Settings declared once: how values are checked, what errors say, and what --help shows."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import numpy as np
import pytest
from annotated_types import Ge, Le, Lt

from diffretriever_pyserini.errors import ConfigError, InputError
from diffretriever_pyserini.settings import (
    AboveZero,
    Count,
    Help,
    add_options,
    check_names,
    checked,
    from_arguments,
    given,
    parser_of,
    requirement,
    validate,
)


@dataclass(frozen=True, slots=True)
class Baking:
    """An example."""

    output: Annotated[Path, Help("where to")]
    loaves: Annotated[Count, Help("how many", "N")] = 2
    heat: Annotated[AboveZero, Help("of the oven, 100 % is full", group="oven")] = 0.5
    steam: Annotated[Annotated[float, Ge(0), Lt(1)] | None, Help("share of steam", default="by the bread")] = None
    fan: Annotated[bool, Help("leave the fan off", option="wind")] = True
    light: Annotated[bool, Help("switch the light on")] = False
    flour: Annotated[Literal["rye", "wheat"], Help("kind of flour", group="dough")] = "rye"
    rises: Annotated[Literal[1, 2] | None, Help("how often it rises")] = None
    seeds: Annotated[tuple[str, ...], Help("on top", "SEED")] = ()
    note: str = ""

    def __post_init__(self) -> None:
        validate(self, InputError)


def bake(**values: Any) -> Baking:
    return Baking(output="out", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "written", "converted"),
    [
        ("loaves", np.int64(3), 3),
        ("loaves", 64.0, 64),
        ("rises", 1.0, 1),
        ("loaves", "5", 5),
        ("heat", "1e-4", 1e-4),
        ("heat", np.float32(0.25), 0.25),
        ("heat", 1, 1.0),
        ("steam", None, None),
        ("fan", "no", False),
        ("rises", "2", 2),
        ("rises", np.int32(1), 1),
        ("seeds", ["poppy", Path("sesame")], ("poppy", "sesame")),
        ("seeds", "poppy", ("poppy",)),
        ("note", 2024, "2024"),
        ("note", Path("a/b"), "a/b"),
    ],
)
def test_harmless_spellings_are_converted(name: str, written: object, converted: object) -> None:
    value = getattr(bake(**{name: written}), name)
    assert value == converted and type(value) is type(converted)
    assert bake(**{name: written}) == bake(**{name: converted}), "records with the same meaning are equal"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loaves": 0}, "loaves=0 must be a whole number of at least 1."),
        ({"loaves": True}, "loaves=True must be a whole number of at least 1."),
        ({"loaves": np.True_}, "must be a whole number of at least 1."),
        ({"loaves": 1.5}, "loaves=1.5 must be a whole number of at least 1."),
        ({"loaves": None}, "loaves=None must be a whole number of at least 1."),
        ({"heat": 0}, "heat=0 must be a number above 0."),
        ({"heat": "hot"}, "heat='hot' must be a number above 0."),
        ({"heat": float("nan")}, "heat=nan must be a number above 0."),
        ({"heat": "inf"}, "heat='inf' must be a number above 0."),
        ({"steam": 1}, "steam=1 must be a number of at least 0 and below 1."),
        ({"steam": False}, "steam=False must be a number of at least 0 and below 1."),
        ({"fan": "perhaps"}, "fan='perhaps' must be true or false."),
        ({"flour": "oats"}, "flour='oats' must be one of 'rye', 'wheat'."),
        ({"rises": 3}, "rises=3 must be one of 1, 2."),
        ({"rises": True}, "rises=True must be one of 1, 2."),
        ({"seeds": 5}, "seeds=5 must be a list in which each value is text."),
        ({"note": ["a"]}, "note=['a'] must be text."),
        ({"loaves": 0, "heat": -1}, "loaves=0 must be a whole number of at least 1; heat=-1 must be a number above 0."),
    ],
)
def test_an_error_says_what_a_value_must_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as raised:
        bake(**values)
    assert str(raised.value).endswith(message)


@pytest.mark.parametrize("values", [{"seeds": {"a", "b"}}, {"seeds": frozenset("a")}, {"note": b"x"}, {"loaves": b"1"}])
def test_sets_and_bytes_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(values))}=.* must be"):
        bake(**values)


def test_an_error_begins_with_where_the_value_came_from() -> None:
    with pytest.raises(ConfigError, match=r"^mine\.yaml: loaves='many' must be a whole number of at least 1\.$"):
        checked(Baking, {"loaves": "many"}, where="mine.yaml")
    with pytest.raises(ConfigError, match=r"^mine\.yaml: unknown setting 'loafs'; did you mean loaves\?$"):
        check_names(Baking, {"loafs": 1}, where="mine.yaml")
    with pytest.raises(InputError, match=r"^unknown setting 'xyz'; known: fan, flour, heat, "):
        checked(Baking, {"xyz": 1}, InputError)


def test_words_for_mappings() -> None:
    assert (
        requirement(dict[Literal["a"], Annotated[float, Le(1)]]) == "a mapping from one of 'a' to a number of at most 1"
    )


def parser(**options: Any) -> argparse.ArgumentParser:
    bake_parser = argparse.ArgumentParser(prog="bake", allow_abbrev=False)
    add_options(bake_parser, Baking, **options)
    return bake_parser


def test_options_make_the_record() -> None:
    words = "--output out --loaves 3 --no-wind --light --flour wheat --rises 2 --seeds poppy sesame --steam 0"
    baking = from_arguments(Baking, parser().parse_args(words.split()), note="x")
    assert baking == Baking(Path("out"), 3, 0.5, 0.0, False, True, "wheat", 2, ("poppy", "sesame"), "x")
    assert from_arguments(Baking, parser().parse_args(["--output", "out"])) == bake()


def test_options_over_a_file_say_only_what_was_given() -> None:
    words = ["--wind", "false", "--light", "true", "--heat", "2"]
    assert given(Baking, parser(over_file=True).parse_args(words)) == {"fan": False, "light": True, "heat": 2.0}
    assert given(Baking, parser(over_file=True).parse_args([])) == {}


def test_help_shows_choices_ranges_and_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    lines = [" ".join(line.split()) for line in parser(skip=("seeds",)).format_help().splitlines()]
    for line in (
        "--output OUTPUT where to",
        "--loaves N how many (at least 1; default: 2)",
        "oven:",
        "--heat X of the oven, 100 % is full (above 0; default: 0.5)",
        "--steam X share of steam (at least 0 and below 1; default: by the bread)",
        "--no-wind leave the fan off",
        "--light switch the light on",
        "dough:",
        "--flour {rye,wheat} kind of flour (default: rye)",
        "--rises {1,2} how often it rises",
    ):
        assert line in lines
    assert not any("--seeds" in line or "--note" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--loaves", "0"], "argument --loaves: '0' must be a whole number of at least 1"),
        (["--heat", "nan"], "argument --heat: 'nan' must be a number above 0"),
        (["--rises", "3"], "argument --rises: '3' must be one of 1, 2"),
        (["--flour", "oats"], "argument --flour: invalid choice"),
        ([], "the following arguments are required: --output"),
    ],
)
def test_wrong_options_are_named_as_typed(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        parser().parse_args([*(["--output", "out"] if words else []), *words])
    assert raised.value.code == 2
    assert message in capsys.readouterr().err


def test_one_option_alone() -> None:
    assert parser_of(Count)("7") == 7
    with pytest.raises(argparse.ArgumentTypeError, match="'0' must be a whole number of at least 1"):
        parser_of(Count)("0")


def test_choices_are_those_of_the_code_that_uses_them() -> None:
    """Some are written twice, because the code that uses them is too heavy for `--help`."""
    from diffretriever_pyserini.encoding.options import EncodeOptions
    from diffretriever_pyserini.scoring.fusion import FUSIONS, RRF_K
    from diffretriever_pyserini.searching.options import SearchOptions
    from diffretriever_pyserini.store.spec import DTYPES, VECTORS
    from diffretriever_pyserini.training.settings import METRICS, TrainSettings

    for record, name, choices in (
        (SearchOptions, "fusion", FUSIONS),
        (EncodeOptions, "dtype", DTYPES),
        (EncodeOptions, "vectors", VECTORS),
        (TrainSettings, "metric", METRICS),
    ):
        hint = get_type_hints(record)[name]
        assert get_args(hint) == choices
    assert SearchOptions().rrf_k == RRF_K
