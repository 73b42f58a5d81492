"""Steps, commands and estimates of an experiment, without running it."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from diffretriever_pyserini.cli import _parser
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.experiments.commands import our_command, pyserini_commands
from diffretriever_pyserini.experiments.cost import costs
from diffretriever_pyserini.experiments.measures import trec_eval_options, with_relevance
from diffretriever_pyserini.experiments.options import ReproduceOptions
from diffretriever_pyserini.experiments.plan import Plan
from diffretriever_pyserini.experiments.reading import list_experiments, read_experiment, selected, with_folders
from diffretriever_pyserini.experiments.show import as_text, our_commands, written_files


def plan_of(name: str, *collections: str, **options: object) -> Plan:
    experiment = read_experiment(name)
    return Plan(experiment, ReproduceOptions(Path("out"), **options), selected(experiment, collections))  # type: ignore[arg-type]


def test_collections_with_one_corpus_share_a_store() -> None:
    plan = plan_of("diffretriever-llada-8b-single", "msmarco-dev", "dl19", "dl20")
    kinds = [step.kind for step in plan.steps]
    assert kinds == ["encode", "index", *["search"] * 9]
    assert {step.corpus for step in plan.steps} == {"msmarco-passage"}


def test_every_shown_command_is_one_that_the_command_line_takes() -> None:
    parser, _ = _parser()
    count = 0
    for name, experiment in list_experiments().items():
        folders = {one: Path(f"data/{one}") for one in ("nfcorpus", "cranfield", "cacm")}
        known = {row.collection for row in experiment.rows}
        experiment = with_folders(experiment, {one: path for one, path in folders.items() if one in known})
        plan = Plan(experiment, ReproduceOptions(Path("out"), device="cuda", dtype="bfloat16"))
        for command in our_commands(plan):
            program, *words = shlex.split(command)
            if program == "diffretriever":
                parser.parse_args(words)
                count += 1
        assert name in str(plan.experiment.name)
    assert count > 150


def test_what_only_run_writes_is_named(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text(
        "description: mine\nsource: none\nconfig: {backbone: bert}\ncollections: {c: {folder: data/c}}\n"
        "rows:\n- {collection: c, mode: dense}\n- {collection: c, mode: bm25}\n"
    )
    plan = Plan(read_experiment(str(tmp_path / "my.yaml")), ReproduceOptions(tmp_path / "out"))
    model = tmp_path / "out" / "model.yaml"
    files = [model, plan.topics_file("c"), plan.qrels_file("c"), tmp_path / "out" / "bm25" / "c" / "corpus"]
    assert written_files(plan) == list(map(str, files))
    assert "`diffretriever reproduce run` writes" in as_text(plan, str)
    model.parent.mkdir()
    model.touch()
    assert written_files(plan) == list(map(str, files[1:]))
    named = plan_of("diffretriever-llada-8b-single", "scifact")
    assert written_files(named) == []


def test_the_query_is_removed_only_where_it_is_a_passage() -> None:
    plan = plan_of("diffretriever-llada-8b-single")
    removed = {step.collection for step in plan.steps if "--remove-query" in our_command(plan, step)}
    assert removed == {"arguana", "quora"}


def test_bm25_uses_the_ready_index_unless_there_is_a_folder() -> None:
    plan = plan_of("bm25", "scifact")
    (step,) = plan.steps
    assert "--index beir-v1.0.0-scifact.flat --topics beir-v1.0.0-scifact-test" in our_command(plan, step)
    local = Plan(with_folders(plan.experiment, {"scifact": Path("data/scifact")}), plan.options, plan.chosen)
    assert [step.kind for step in local.steps] == ["bm25-index", "bm25-search"]


def test_pyserini_measures_with_the_level_of_relevance() -> None:
    commands = pyserini_commands(plan_of("bm25", "dl19"))
    assert commands[-1].startswith("python -m pyserini.eval.trec_eval -c -l 2 -m recall.1000 dl19-passage")
    assert with_relevance("RR@10", 2) == "RR(rel=2)@10"
    assert with_relevance("RR(rel=1)@10", 2) == "RR(rel=1)@10"
    assert trec_eval_options("RR@10") == ["-M", "10", "-m", "recip_rank"]
    assert trec_eval_options("AP(rel=2)") == ["-l", "2", "-m", "map"]
    assert trec_eval_options("nDCG@10") == ["-m", "ndcg_cut.10"]
    assert trec_eval_options("P@10") == ["-m", "P.10"]
    assert trec_eval_options("Judged@10") is None


def test_hours_and_bytes_are_those_of_the_page_on_encoding() -> None:
    """MS MARCO by Dream 7B with 16 masks: docs/encoding.md has 130 tokens, 7.7 hours, 1,014 GB; the index 63 GB."""
    (cost,) = costs(plan_of("diffretriever-dream-7b-multi-q4-p16", "msmarco-dev"))
    assert round(cost.tokens) == 130
    assert round(cost.hours, 1) == 7.7
    assert round((cost.store - 300 * cost.passages) / 1e9) == 1014
    assert round((cost.indexes - 300 * cost.passages) / 1e9) == 63
    (single,) = costs(plan_of("diffretriever-dream-7b-single", "msmarco-dev", dense="sq8"))
    assert round((single.store - 300 * single.passages) / 1e9) == 63


def test_what_a_store_holds_does_not_depend_on_the_chosen_modes() -> None:
    experiment = read_experiment("diffretriever-mini")
    plan = Plan(experiment, ReproduceOptions(Path("out")), selected(experiment, ["nfcorpus"], ["dense"]))
    assert [step.kind for step in plan.steps] == ["encode", "index", "search"]
    assert plan.vectors == "all" and plan.signals("hybrid") == ("multi", "lexical")
    assert plan.indexed_signals("beir-nfcorpus") == ("dense",)


def test_another_model_than_the_experiments_own() -> None:
    plan = plan_of("repllama-v1-7b", "scifact", encoder="mine.yaml")
    assert plan.encoder == "mine.yaml"
    own = replace(plan.experiment, model=None, config={"backbone": "base", "k_passage": 16, "hybrid_weight": 0.9})
    assert Plan(own, ReproduceOptions(Path("out"))).config == own.config
    assert Plan(own, plan.options).config is None, "its settings are those of another model"
    assert any("mine.yaml" in command for command in our_commands(plan))


def test_a_collection_without_names_needs_a_folder() -> None:
    with pytest.raises(InputError, match="--folder cranfield=DIR"):
        _ = plan_of("diffretriever-mini", "cranfield").steps
