"""`diffretriever evaluate --compare`: table, texts, notes, JSON, deltas and a plot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import main

# nDCG@10 of a single relevant passage at rank 2 is 1 / log2(3) = 0.6309.
RUNS = {
    "base": {"q1": "abc", "q2": "xby", "q3": "cab"},
    "better": {"q1": "abc", "q2": "bxy", "q3": "cab", "q4": "d"},
    "worse": {"q1": "xya"},
}


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "qrels.txt").write_text("q1 0 a 1\nq2 0 b 1\nq3 0 c 1\nq4 0 d 1\n")
    (tmp_path / "topics.tsv").write_text("q1\tfirst\nq2\tsecond question\nq3\tthird\nq4\tfourth\n")
    for name, run in RUNS.items():
        lines = [
            f"{qid} Q0 {docid} {rank} {9 - rank} x\n" for qid, hits in run.items() for rank, docid in enumerate(hits, 1)
        ]
        (tmp_path / name).write_text("".join(lines))
    return ["evaluate", "--qrels", "qrels.txt", "--measures", "nDCG@10", "R@1", "--run", "base"]


def test_one_run_against_the_baseline(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "--compare", "better", "--topics", "topics.tsv"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["base", "0.6577", "0.5000"] in lines
    # Deltas 0, 0.3691, 0, 1: half of the four patterns of two signs that matter are as far from 0.
    assert ["better", "nDCG@10", "+0.3423", "2", "2", "0", "0.2427", "0.5000"] in lines
    assert ["+1.0000", "q4", "fourth"] in lines
    assert ["+0.3691", "q2", "second", "question"] in lines
    assert "largest losses" not in out
    assert "Holm" not in out
    assert "better and base have results for different queries: 1 only in the former, 0 only in the latter" in out
    assert "one without results counts 0" in out


def test_several_runs_are_corrected(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments, "worse", "--compare", "better", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["baseline"] == "base"
    assert set(result["runs"]) == {"base", "better", "worse"}
    assert [(one["run"], one["measure"]) for one in result["comparisons"]] == [
        ("worse", "nDCG@10"),
        ("better", "nDCG@10"),
        ("worse", "R@1"),
        ("better", "R@1"),
    ]
    worse, better = result["comparisons"][:2]
    assert worse["losses"]["q3"] == -1.0
    assert better["gains"] == {"q4": 1.0, "q2": pytest.approx(0.3691, abs=1e-4)}
    assert (worse["won"], worse["tied"], worse["lost"]) == (0, 1, 3)
    p_values = [worse["t_test"], better["t_test"]]
    low, high = sorted(p_values, key=lambda entry: entry["p"])
    assert low["p_holm"] == pytest.approx(2 * low["p"])
    assert high["p_holm"] == pytest.approx(max(2 * low["p"], high["p"]))
    assert len(result["notes"]) == 2
    assert main([*arguments, "worse", "--compare", "better"]) == 0
    header = next(
        line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("run  ") and "lost" in line
    )
    assert header[-4:] == ["t-test", "t+Holm", "randomisation", "rand.+Holm"]
    assert len(header) == len(set(header))


def test_deltas_and_plot(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, "--compare", "better", "--deltas", "d.tsv", "--plot", "d.png"]) == 0
    rows = [line.split("\t") for line in (tmp_path / "d.tsv").read_text().splitlines()]
    assert rows[0] == ["run", "query", "measure", "baseline", "value", "delta"]
    assert ["better", "q2", "nDCG@10", "0.630930", "1.000000", "+0.369070"] in rows
    assert ["better", "q4", "R@1", "0.000000", "1.000000", "+1.000000"] in rows
    assert len(rows) == 1 + 4 * 2
    assert (tmp_path / "d.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--plot", "d.png"], "--plot belongs to a comparison"),
        (["--topics", "topics.tsv"], "--topics belongs to a comparison"),
        (["--compare", "base"], "base is named twice"),
        (["--compare", "better", "--deltas", "none/d.tsv"], "none/d.tsv: cannot be written"),
        (["--compare", "none"], "none: cannot be read"),
    ],
)
def test_bad_options(arguments: list[str], capsys: pytest.CaptureFixture[str], more: list[str], message: str) -> None:
    assert main([*arguments, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_seed_is_a_whole_number_of_at_least_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--compare", "better", "--seed", "-1"])
    assert caught.value.code == 2
    assert "--seed: '-1' must be a whole number of at least 0" in capsys.readouterr().err
