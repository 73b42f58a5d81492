"""The demo from end to end: write a collection, run Pyserini's commands on it, measure, and show the results."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..corpora.beir import open_beir
from ..errors import ConfigError
from ..evaluation.metrics import Evaluation, evaluate
from ..evaluation.report import measures_table
from ..evaluation.runs import read_run
from ..files.atomic import read_json, write_json
from ..files.folders import whole_folder
from ..files.outputs import refuse_inputs
from ..model.config import RetrieverConfig
from ..model.encoder_names import parse_encoder_name
from ..model.hub import local_folder
from ..model.prebuilt import prebuilt_values
from ..model.resolve import resolve_config
from ..runtime.commands import Step, StepError, run_step, shown
from .collection import WrittenCollection, write_collection
from .commands import RUNS, pyserini_steps, question
from .options import DemoOptions
from .show import top_hits, verdict

MARKER = "demo.json"
MEASURES = ("nDCG@10", "R@100")


def run_demo(options: DemoOptions, say: Callable[[str], None] = print) -> dict[str, Evaluation]:
    """Run the demo and return the measures of each run (BM25, dense, lexical, hybrid).

    After success everything is in `options.output`. Until then, and after a failure, it is in `<output>.unfinished`
    with the logs.

    Raises
    ------
    DiffRetrieverError
        For a defect in the collection, a missing model, or a command that failed.
    """
    started = time.monotonic()
    encoder = _target(options.encoder)
    model = resolve_config(encoder)
    dimension = vector_width(model)
    if options.dataset is not None:
        beir = open_beir(options.dataset)
        refuse_inputs({"--output": options.output}, {"--dataset": (beir.corpus, beir.queries, beir.qrels)})
    with whole_folder(options.output, MARKER) as folder:
        collection = write_collection(folder, options.dataset, options.limit)
        say(f"Collection: {collection.name}, {collection.passages} passages, {len(collection.queries)} queries")
        if collection.note:
            say(f"Note: {collection.note}")
        masks = f"{model.k_query} masks per query, {model.k_passage} per passage"
        say(f"Model: {model.name}, {masks}, {dimension} dimensions")
        say(f"Working in {folder}\n")
        steps = pyserini_steps(encoder, dimension, model.hybrid_alpha, options.device, options.threads)
        ran = _run_all(steps, folder, collection, say)
        runs = {name: read_run(folder / file) for name, file in RUNS.items()}
        evaluations = {name: evaluate(run, collection.qrels, MEASURES) for name, run in runs.items()}
        hits = top_hits(folder, collection, runs["hybrid"])
        record = _record(options, model, collection, ran, evaluations)
        write_json(folder / MARKER, record)
    say(f"\nFirst hits of the hybrid run:\n\n{hits}\n\n{_measured(evaluations)}\n")
    query = next(iter(collection.queries.values()))
    say(f"To ask a question:\n  {question(options.output, query)}")
    say("Run files:")
    for file in RUNS.values():
        say(f"  {options.output / file}")
    say(f"To run the commands again, change to {options.output} and use {sys.executable} as python.")
    say(f"The demo took {time.monotonic() - started:.0f} s.")
    return evaluations


def _target(encoder: str) -> str:
    """The model that --encoder names; paths become absolute, because the commands run in another folder."""
    target = encoder if encoder == "diffretriever" else parse_encoder_name(encoder).target
    path = Path(target).expanduser()
    return str(path.resolve()) if prebuilt_values(target) is None and path.exists() else target


def _run_all(
    steps: list[Step], folder: Path, collection: WrittenCollection, say: Callable[[str], None]
) -> list[dict[str, object]]:
    """Run the steps in order and return their commands and times in seconds."""
    (folder / "logs").mkdir()
    ran: list[dict[str, object]] = []
    for number, step in enumerate(steps, start=1):
        say(f"[{number}/{len(steps)}] {step.title}\n  $ {shown(step.arguments)}")
        seconds = round(run_step(step, folder, folder / "logs" / f"{number}.log"), 1)
        ran.append({"command": shown(step.arguments), "seconds": seconds})
        say(f"  {seconds} s")
        _check_encoded(step, folder, collection.passages)
    return ran


def _check_encoded(step: Step, folder: Path, passages: int) -> None:
    """Raise StepError where an encoding command has lost passages."""
    counted = {"index.dense/index": "index.dense/docid", "vectors.lexical/embeddings.jsonl": step.produces}
    if step.produces not in counted:
        return
    with (folder / counted[step.produces]).open("rb") as file:
        lines = sum(1 for _ in file)
    if lines != passages:
        raise StepError(f"{step.title}: only {lines} of {passages} passages are in {counted[step.produces]}.")


def vector_width(model: RetrieverConfig) -> int:
    """The dimension of a model's vectors from its base's config.json, without loading weights."""
    path = local_folder(model.backbone) / "config.json"
    values = read_json(path)
    width = next((values[key] for key in ("hidden_size", "d_model", "dim") if key in values), None)
    if not isinstance(width, int):
        raise ConfigError(f"{path}: none of hidden_size, d_model and dim is a whole number; check the checkpoint.")
    return width


def _measured(evaluations: dict[str, Evaluation]) -> str:
    counts = {name: len(evaluation.without_results) for name, evaluation in evaluations.items()}
    empty = ", ".join(f"{name}: {count}" for name, count in counts.items() if count)
    note = f"\nQueries without any result count 0 ({empty})." if empty else ""
    means = {name: evaluation.means[MEASURES[0]] for name, evaluation in evaluations.items()}
    return f"{verdict(means, MEASURES[0])}\n\n{measures_table(evaluations, MEASURES)}{note}"


def _record(
    options: DemoOptions,
    model: RetrieverConfig,
    collection: WrittenCollection,
    ran: list[dict[str, object]],
    evaluations: dict[str, Evaluation],
) -> dict[str, object]:
    return {
        "collection": collection.name,
        "note": collection.note,
        "passages": collection.passages,
        "queries": len(collection.queries),
        "encoder": options.encoder,
        "model": model.name,
        "device": options.device,
        "measures": {name: evaluation.means for name, evaluation in evaluations.items()},
        "steps": ran,
    }
