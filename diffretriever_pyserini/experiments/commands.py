"""The commands of a step as a person would type them: ours, and Pyserini's on the same indexes."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..model.encoder_names import EncoderName
from ..model.prebuilt import written_hybrid_weight
from .measures import trec_eval_options
from .plan import HITS, Plan, Step
from .records import Collection, Row

BM25_PARAMETERS = ("--bm25", "--k1", "0.9", "--b", "0.4")
_TREC_EVAL = "python -m pyserini.eval.trec_eval"


def our_command(plan: Plan, step: Step) -> str:
    """The command of ``step``; for BM25 it is Pyserini's, in the output folder."""
    if step.kind in ("bm25-index", "bm25-search"):
        arguments = {"bm25-index": bm25_index_arguments, "bm25-search": bm25_search_arguments}[step.kind](plan, step)
        return f"cd {shlex.quote(str(plan.output))} && {pyserini_module(arguments)}"
    made = {"encode": _encode, "index": _index, "search": _search}[step.kind](plan, step)
    return shlex.join(["diffretriever", *made])


def pyserini_command(plan: Plan, step: Step) -> str | None:
    """Pyserini's command that searches the same index; None where it has none (exact MaxSim, three signals)."""
    if step.kind != "search" or plan.exact(step.mode):
        return None
    collection, folder = plan.collection(step.collection), plan.index(step.corpus)
    encoder, signals = str(EncoderName(plan.encoder)), plan.signals(step.mode)
    topics = str(collection.topics if collection.folder is None else plan.topics_file(step.collection))
    end = ["--topics", topics, "--output", _pyserini_run(plan, step.collection, step.mode), "--hits", str(HITS)]
    end += ["--remove-query"] if collection.remove_query else []
    device = ["--device", plan.options.device]
    lexical = ["--index", str(folder / "lexical"), "--impact", "--min-idf", "-1", "--encoder", encoder]
    if signals == ("lexical",):
        return pyserini_module(["pyserini.search.lucene", *lexical, *end])
    dense = ["--index", str(folder / signals[0]), "--encoder", encoder, *device]
    if len(signals) == 1:
        return pyserini_module(["pyserini.search.faiss", *dense, *end])
    if len(signals) == 2 and "lexical" in signals:
        fusion = ["fusion", "--alpha", f"{1 / _hybrid_weight(plan) - 1:.4g}", "--normalization"]
        return pyserini_module(["pyserini.search.hybrid", "dense", *dense, "sparse", *lexical, *fusion, "run", *end])
    return None


def _hybrid_weight(plan: Plan) -> float:
    of_experiment = (plan.config or {}).get("hybrid_weight")
    return float(of_experiment or written_hybrid_weight(plan.encoder))


def evaluate_commands(plan: Plan) -> list[str]:
    """Our commands that measure the runs, one per collection."""
    runs: dict[str, dict[str, None]] = {}
    measures: dict[str, dict[str, None]] = {}
    for row in plan.own_rows:
        runs.setdefault(row.collection, {})[str(plan.run(row.collection, row.mode))] = None
        measures.setdefault(row.collection, {})[plan.measure_of(row)] = None
    commands = []
    for name, paths in runs.items():
        collection = plan.collection(name)
        qrels = ["--qrels", str(collection.qrels_source()), *_split(collection)]
        commands.append(
            shlex.join(["diffretriever", "evaluate", *qrels, "--run", *paths, "--measures", *measures[name]])
        )
    return commands


def pyserini_evaluate_command(plan: Plan, row: Row) -> str | None:
    """Pyserini's command for the same; None for a measure that its trec_eval does not have."""
    options = trec_eval_options(plan.measure_of(row))
    if options is None:
        return None
    collection = plan.collection(row.collection)
    qrels = str(collection.qrels if collection.folder is None else plan.qrels_file(row.collection))
    run = plan.run(row.collection, row.mode)
    return f"{_TREC_EVAL} -c {' '.join(options)} {shlex.join([qrels, str(run)])}"


def pyserini_commands(plan: Plan) -> list[str]:
    """Pyserini's commands that search the same indexes, and measure the runs."""
    commands = [pyserini_command(plan, step) for step in plan.steps]
    commands += [pyserini_evaluate_command(plan, row) for row in plan.own_rows]
    return [command for command in commands if command is not None]


def bm25_index_arguments(plan: Plan, step: Step) -> list[str]:
    """Pyserini's arguments that index the texts for BM25; paths are relative to the output folder."""
    folder = _inside(plan, plan.bm25(step.corpus))
    arguments = ["pyserini.index.lucene", "--collection", "JsonCollection", "--input", f"{folder}/corpus"]
    arguments += ["--index", f"{folder}/index", "--generator", "DefaultLuceneDocumentGenerator"]
    return [*arguments, "--threads", str(plan.options.threads)]


def bm25_search_arguments(plan: Plan, step: Step, output: Path | None = None) -> list[str]:
    """Pyserini's arguments that search them: its own index and topics, or those of :func:`bm25_index_arguments`."""
    collection = plan.collection(step.collection)
    ready = plan.ready_index(collection)
    index, topics = (ready, collection.topics) if ready else (f"{_inside(plan, plan.bm25(step.corpus))}/index", None)
    topics = topics or _inside(plan, plan.topics_file(step.collection))
    arguments = ["pyserini.search.lucene", "--index", index, "--topics", topics]
    arguments += ["--output", _inside(plan, output or plan.product(step)), *BM25_PARAMETERS, "--hits", str(HITS)]
    arguments += ["--threads", str(plan.options.threads), "--batch-size", "64"]
    return [*arguments, "--remove-query"] if collection.remove_query else arguments


def pyserini_module(arguments: list[str]) -> str:
    """``python -m`` and ``arguments``, quoted for a shell."""
    return shlex.join(["python", "-m", *arguments])


def _encode(plan: Plan, step: Step) -> list[str]:
    corpus = str(plan.collection(step.collection).corpus_source())
    words = ["encode", "--encoder", plan.encoder, "--corpus", corpus, "--output", str(plan.store(step.corpus))]
    words += ["--vectors", plan.vectors] if plan.vectors != "all" else []
    return words + _machine(plan)


def _index(plan: Plan, step: Step) -> list[str]:
    words = ["index", "--store", str(plan.store(step.corpus)), "--output", str(plan.index(step.corpus))]
    for signal in plan.indexed_signals(step.corpus):
        words += [f"--{signal}", *([plan.options.dense] if signal == "dense" else [])]
    return [*words, "--encoder", plan.encoder]


def _search(plan: Plan, step: Step) -> list[str]:
    collection = plan.collection(step.collection)
    words = ["search"]
    if plan.exact(step.mode):
        for signal, folder in plan.signal_folders(step):
            words += [f"--{signal}-index", str(folder)]
    else:
        words += ["--index", str(plan.index(step.corpus))]
    words += ["--encoder", plan.encoder, "--mode", ",".join(plan.signals(step.mode)), "--topics"]
    words += [str(collection.topics_source()), *_split(collection)]
    words += ["--output", str(plan.run(step.collection, step.mode)), "--hits", str(HITS)]
    return words + (["--remove-query"] if collection.remove_query else []) + _machine(plan)


def _machine(plan: Plan) -> list[str]:
    words = ["--device", plan.options.device] if plan.options.device != "cpu" else []
    return words + (["--dtype", plan.options.dtype] if plan.options.dtype else [])


def _split(collection: Collection) -> list[str]:
    return ["--split", collection.split] if collection.folder is not None and collection.split != "test" else []


def _inside(plan: Plan, path: Path) -> str:
    return str(path.relative_to(plan.output))


def _pyserini_run(plan: Plan, name: str, mode: str) -> str:
    return str(plan.run(name, mode).with_suffix(".pyserini.txt"))
