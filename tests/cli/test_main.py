"""The command line: help, one-line errors and exit codes, without importing heavy packages."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import _parser, main
from diffretriever_pyserini.cli.models import GROUPS
from diffretriever_pyserini.evaluation.metrics import DEFAULT_MEASURES

COMMANDS = list(_parser()[1])
HEAVY = {
    "datasets", "faiss", "ir_measures", "jinja2", "jnius", "matplotlib", "nltk", "numpy", "pandas", "peft", "pyarrow",
    "pydantic", "pyserini", "pytrec_eval", "rich", "safetensors", "scipy", "torch", "transformers", "yaml",
}  # fmt: skip


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)], ids=" ".join)
def test_help(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: diffretriever" in capsys.readouterr().out


def test_no_help_loads_a_heavy_package() -> None:
    code = (
        "import sys\n"
        "from diffretriever_pyserini.cli import _parser, main\n"
        "for words in (['--help'], *([name, '--help'] for name in sys.argv[1:])):\n"
        "    try:\n        main(words)\n"
        "    except SystemExit:\n        pass\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True, check=True)
    assert result.stdout.count("usage: diffretriever ") == 1 + len(COMMANDS)
    loaded = set(result.stdout.splitlines()[-1].split())
    assert "diffretriever_pyserini" in loaded
    assert HEAVY & loaded == set()


def test_python_m_is_the_same_command() -> None:
    command = [sys.executable, "-m", "diffretriever_pyserini", "--help"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("usage: diffretriever")


@pytest.mark.parametrize("option", ["-V", "--version"])
def test_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([option])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["diffretriever-pyserini", "pyserini"]


def test_no_command_is_an_error() -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--qrels", str(tmp_path / "none.tsv"), "--run", "x"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("diffretriever: error: ")
    assert "none.tsv" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("switch", ["option", "variable"])
def test_the_traceback_is_shown_on_request(
    switch: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["evaluate", "--qrels", str(tmp_path / "none.tsv"), "--run", "x"]
    if switch == "variable":
        monkeypatch.setenv("DIFFRETRIEVER_TRACEBACK", "1")
    else:
        command.append("--traceback")
    assert main(command) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"), [("encode --corpus c --output s", "; the same command continues"), ("doctor", "")]
)
def test_an_interrupted_command_says_whether_it_continues(
    words: str, hint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(arguments: argparse.Namespace) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"diffretriever_pyserini.cli.{words.split()[0]}._run", interrupted)
    assert main(words.split()) == 130
    assert capsys.readouterr().err == f"diffretriever: interrupted{hint}\n"


def test_the_prebuilt_models_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "diffretriever-dream-7b-multi-q4-p16" in out
    assert "4/16" in out


@pytest.mark.parametrize("width", ["40", "80", None])
def test_the_list_of_models_fits(
    width: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if width:
        monkeypatch.setenv("COLUMNS", width)
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == [GROUPS["masked LM"], "diffretriever", "    short for diffretriever-mini, the default"]
    assert max(map(len, lines)) <= max(60, int(width or 100))
    assert "    weights: comes with this package" in lines
    assert "    weights: ielabgroup/diffretriever-dream-7b-multi-q4-p16" in lines


def test_the_prebuilt_models_are_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    titles = [lines.index(title) for title in GROUPS.values()]
    assert titles == sorted(titles)
    assert main(["models", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    models = {model["name"]: model for model in listed["models"]}
    assert listed["default"] in models
    for name, group, readout in (
        ("diffretriever-mini", "masked LM", "mask"),
        ("diffretriever-llada-8b-single", "fine-tuned", "mask"),
        ("qwen3-0.6b-diffusion-zeroshot-q4-p4", "zero-shot", "mask"),
        ("promptreps-phi-3-mini-single", "baseline", "next_token"),
        ("diffembed-dream-7b", "baseline", "mean"),
        ("repllama-v1-7b", "baseline", "last_token"),
    ):
        assert (models[name]["group"], models[name]["readout"]) == (group, readout)
        line = next(i for i, line in enumerate(lines) if line.split()[:1] == [name])
        assert max(title for title in titles if title < line) == lines.index(GROUPS[group])


@pytest.mark.parametrize(
    ("typed", "expected"), [("serach", "search"), ("indx", "index"), ("encode_queries", "encode-queries")]
)
def test_a_misspelt_command(typed: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([typed, "--output", "x"])
    assert caught.value.code == 2
    assert f"unknown command '{typed}': did you mean {expected}?" in capsys.readouterr().err


def test_an_unknown_command_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["qqqq"])
    error = capsys.readouterr().err
    assert "unknown command 'qqqq'; the commands are demo, doctor, " in error
    assert "did you mean" not in error


def test_the_default_measures_are_written_as_they_are_typed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "default: nDCG@10 R@100 RR@10" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models", "--sho"], "diffretriever models: error: unknown option '--sho'"),
        (["search", "--index=I", "--topics", "T", "--output", "R", "--hit=3"], "'--hit=3': did you mean --hits?"),
        (["multi", "info", "--index", "I", "--jsn"], "unknown option '--jsn': did you mean --json?"),
        (
            ["index", "--stor", "S"],
            "unknown option '--stor': did you mean --store? (the following arguments are required",
        ),
        (["index", "--output", "I"], "error: the following arguments are required: --store"),
        (
            ["search", "--index", "I", "--topic", "T"],
            "did you mean --topics? (one of the arguments --query --topics is",
        ),
        (["search", "--index", "I"], "error: one of the arguments --query --topics is required"),
        (["-x", "doctor"], "diffretriever doctor: error: unknown option '-x'"),
        (
            ["search", "--index", "I", "--query", "how", "tall", "is", "it"],
            "unknown argument 'tall': --query takes one text; put several words in quotes.",
        ),
        (["search", "--query", "how", "--index", "I", "tall"], "unknown argument 'tall'"),
        (["search", "--query", "q", "--weights", "bm25=x"], "bm25=x: 'x' must be a number of at least 0"),
        (["search", "--query", "q", "--weights", "bm52=1"], "bm52=1: 'bm52' must be one of 'dense', "),
        (["doctor", "now"], "diffretriever doctor: error: unknown argument 'now'"),
    ],
)
def test_options_cannot_be_abbreviated(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_list_option_may_be_repeated() -> None:
    parser = _parser()[0]
    search = ["search", "--query", "q", "--weights", "bm25=0.5", "--weights", "dense=2", "multi=3"]
    assert parser.parse_args(search).weights == [("bm25", "0.5"), ("dense", "2"), ("multi", "3")]
    evaluate = ["evaluate", "--qrels", "Q", "--run", "a", "--run", "b", "--measures", "AP", "--measures", "RR"]
    arguments = parser.parse_args(evaluate)
    assert ([path.name for path in arguments.run], arguments.measures) == (["a", "b"], ["AP", "RR"])
    assert parser.parse_args(evaluate[:5]).measures == list(DEFAULT_MEASURES)
