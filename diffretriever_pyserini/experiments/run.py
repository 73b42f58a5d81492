"""Runs an experiment: encode, index, search, evaluate; a run that was killed continues after its last whole step."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..corpora.beir import open_beir
from ..corpora.corpus import Corpus, write_corpus
from ..corpora.qrels import write_qrels
from ..corpora.topics import write_topics
from ..encoding.options import EncodeOptions
from ..errors import DiffRetrieverError, InputError
from ..files.atomic import only_writer, read_json, write_json, write_whole
from ..files.outputs import refuse_inputs
from ..indexes.options import LEXICAL, IndexOptions, MultiBuild
from ..model.readouts import no_terms
from ..runtime.commands import Step as Command
from ..runtime.commands import StepError, run_step
from ..searching.options import SearchOptions
from ..store.store import Store
from .commands import bm25_index_arguments, bm25_search_arguments, our_command
from .plan import HITS, Plan, Step
from .results import Results, measured

if TYPE_CHECKING:
    from ..model.retriever import DiffRetriever

RECORD = "steps.json"


@dataclass(frozen=True)
class Readers:
    """The functions that read topics and judgements by every name: source and split in, a mapping out."""

    topics: Callable[[str, str], dict[str, str]]
    qrels: Callable[[str, str], dict[str, dict[str, int]]]


def reproduce(plan: Plan, readers: Readers, say: Callable[[str], None] = print) -> Results:
    """Do the steps of ``plan`` that are not done yet, and measure its rows.

    A step is done again only if something that decides its product has changed: the model's settings or files, the
    corpus, the topics, the mode. ``OUTPUT/results.md`` and ``results.json`` have the scores, ``steps.json`` the
    finished steps.

    Raises
    ------
    DiffRetrieverError
        For a model, corpus, topics or judgements that cannot be read (before anything is encoded), a step that fails,
        and an output folder that another process is writing.
    """
    return _Work(plan, readers, say).run()


@dataclass
class _Work:
    """One run of a plan."""

    plan: Plan
    readers: Readers
    say: Callable[[str], None]
    topics: dict[str, dict[str, str]] = field(default_factory=dict)
    qrels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    corpora: dict[str, Corpus] = field(default_factory=dict)
    finished: dict[str, Any] = field(default_factory=dict)

    def run(self) -> Results:
        plan, output = self.plan, self.plan.output
        steps = plan.steps
        folders = [one.folder for one in plan.experiment.collections.values() if one.folder is not None]
        refuse_inputs({"--output": output}, {"--folder": folders})
        output.mkdir(parents=True, exist_ok=True)
        with only_writer(output / "lock", str(output)):
            self._read(steps)
            record = output / RECORD
            if record.is_file():
                self.finished = read_json(record, "remove it, and every step is done again")
            for number, step in enumerate(steps, start=1):
                self._do(step, f"[{number}/{len(steps)}]")
            results = measured(plan, self.qrels, self._stamps(steps))
            write_json(output / "results.json", results.as_json())
            write_whole(output / "results.md", results.page())
        return results

    def _read(self, steps: tuple[Step, ...]) -> None:
        """Read what is needed, before anything is made: what is missing is an error now, and not after hours."""
        plan = self.plan
        for name in dict.fromkeys(step.collection for step in steps):
            collection = plan.collection(name)
            if collection.folder is not None:
                open_beir(collection.folder, collection.split)
            self.topics[name] = self.readers.topics(str(collection.topics_source()), collection.split)
            self.qrels[name] = self.readers.qrels(str(collection.qrels_source()), collection.split)
            if collection.folder is not None or plan.ready_index(collection) is None:
                plan.topics_file(name).parent.mkdir(exist_ok=True)
                write_topics(plan.topics_file(name), self.topics[name])
                write_qrels(plan.qrels_file(name), self.qrels[name])
        for step in steps:
            if step.kind in ("encode", "bm25-index") and step.corpus not in self.corpora:
                corpus = Corpus(str(plan.collection(step.collection).corpus_source()))
                if step.id not in self.finished:
                    next(corpus.rows())
                self.corpora[step.corpus] = corpus
        if any(step.kind == "encode" for step in steps):
            self._check_model()

    def _check_model(self) -> None:
        from ..model.resolve import resolve_config

        if self.plan.config is not None:
            import yaml

            text = yaml.safe_dump(dict(self.plan.config))
            path = Path(self.plan.encoder)
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                write_whole(path, text)
        config = resolve_config(self.plan.encoder)
        if why := no_terms(self.plan.encoder, config.readout):
            for row in self.plan.own_rows:
                if LEXICAL in self.plan.signals(row.mode):
                    raise InputError(f"mode {row.mode}: {why}.")

    def _do(self, step: Step, number: str) -> None:
        product, decided = self.plan.product(step), self._decided_by(step)
        done = self.finished.get(step.id, {})
        if done.get("made_of") == decided and product.exists():
            self.say(f"{number} {step.title}: done before ({done['seconds']:,.1f} s)")
            return
        self.say(f"{number} {step.title}\n  $ {our_command(self.plan, step)}")
        product.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        _WORK[step.kind](self, step)
        seconds = round(time.monotonic() - started, 1)
        self.finished[step.id] = {
            "made_of": decided,
            "command": our_command(self.plan, step),
            "seconds": seconds,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(self.plan.output / RECORD, self.finished)
        self.say(f"  {seconds:,.1f} s")

    def _decided_by(self, step: Step) -> str:
        """A digest of what decides the product of ``step``; threads and the device are not part of it."""
        plan, collection = self.plan, self.plan.collection(step.collection)
        facts: dict[str, Any] = {"kind": step.kind}
        if step.corpus in self.corpora:
            facts["corpus"] = self.corpora[step.corpus].identity()
        if step.kind in ("encode", "index", "search"):
            facts |= {"encoder": plan.encoder, "config": dict(plan.config or {}), "vectors": plan.vectors}
            facts |= {"dtype": plan.options.dtype} | self._model_facts
        if step.kind in ("index", "search"):
            signals = plan.indexed_signals(step.corpus) if step.kind == "index" else plan.signals(step.mode)
            facts |= {"signals": signals, "dense": plan.options.dense if "dense" in signals else None}
        if step.kind in ("search", "bm25-search"):
            facts |= {"topics": self.topics[step.collection], "mode": step.mode, "multi": plan.experiment.multi}
            facts |= {"remove_query": collection.remove_query, "ready_index": plan.ready_index(collection)}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _model_facts(self) -> dict[str, Any]:
        """Settings and files of the model: a step is done again when they change under the same name."""
        from ..model.fingerprint import stamps
        from ..model.resolve import resolve_config

        config = resolve_config(self.plan.encoder)
        return {"settings": config.to_dict(), "files": stamps(config)}

    def _stamps(self, steps: tuple[Step, ...]) -> dict[str, Any]:
        return {step.id: {key: self.finished[step.id][key] for key in ("command", "seconds")} for step in steps}

    def _model(self) -> DiffRetriever:
        from ..model.retriever import load_shared

        return load_shared(self.plan.encoder, device=self.plan.options.device, dtype=self.plan.options.dtype)

    def encode(self, step: Step) -> None:
        """Encode the corpus, or the parts that are missing."""
        from ..encoding.job import encode_corpus

        options = EncodeOptions(vectors=self.plan.vectors)  # type: ignore[arg-type]
        encode_corpus(self._model(), self.corpora[step.corpus], self.plan.store(step.corpus), options)

    def index(self, step: Step) -> None:
        """Build the indexes that the rows need."""
        from ..indexes.build import build_index

        signals, options = self.plan.indexed_signals(step.corpus), self.plan.options
        chosen = IndexOptions(
            dense=options.dense if "dense" in signals else None,
            lexical="lexical" in signals,
            multi=MultiBuild() if "multi" in signals else None,
            threads=options.threads if options.dense != "hnsw" else None,
            encoder=self.plan.encoder,
        )
        build_index(Store(self.plan.store(step.corpus)), self.plan.index(step.corpus), chosen)

    def search(self, step: Step) -> None:
        """Search the topics in one mode, and write the run."""
        from tqdm.auto import tqdm

        from ..evaluation.runs import run_writer
        from ..searching.folder import separate_folders
        from ..searching.index import open_index

        plan, topics = self.plan, self.topics[step.collection]
        folder: Any = plan.index(step.corpus)
        if plan.exact(step.mode):
            folder = separate_folders(**dict(plan.signal_folders(step)))
        mode = ",".join(plan.signals(step.mode))
        remove = plan.collection(step.collection).remove_query
        options = SearchOptions(hits=HITS, remove_query=remove, threads=plan.options.threads)
        machine: dict[str, Any] = {"device": plan.options.device, "dtype": plan.options.dtype}
        with (
            run_writer(plan.product(step)) as write,
            open_index(folder, plan.encoder, mode=mode, **machine) as index,
            tqdm(total=len(topics), desc="Searching", unit=" queries", delay=2, disable=None) as bar,
        ):
            for batch in index.batches(topics, mode, options):
                for qid, hits in batch.items():
                    write(qid, hits)
                bar.update(len(batch))

    def index_for_bm25(self, step: Step) -> None:
        """Write the texts as Pyserini reads them, and let it index them."""
        folder = self.plan.bm25(step.corpus)
        shutil.rmtree(folder / "index", ignore_errors=True)
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        write_corpus(folder / "corpus" / "corpus.jsonl", self.corpora[step.corpus].passages())
        self._command(step, bm25_index_arguments(self.plan, step), self.plan.product(step))

    def search_with_bm25(self, step: Step) -> None:
        """Let Pyserini search the topics, in its own index if it has one."""
        ready = self.plan.ready_index(self.plan.collection(step.collection))
        run = self.plan.product(step)
        partial = run.with_suffix(".partial")  # Pyserini does not write a run whole
        try:
            self._command(step, bm25_search_arguments(self.plan, step, partial), partial)
        except StepError as error:
            if ready is None:
                raise
            name = step.collection
            raise DiffRetrieverError(
                f"{step.title}: Pyserini cannot search its index {ready}, which it downloads when it is first used. "
                f"Without a connection give the texts as a folder with --folder {name}=DIR. ({error})"
            ) from error
        partial.replace(run)

    def _command(self, step: Step, arguments: list[str], product: Path) -> None:
        logs = self.plan.output / "logs"
        logs.mkdir(exist_ok=True)
        run_step(Command(step.title, arguments, str(product.absolute())), self.plan.output, logs / f"{step.id}.log")


_WORK: Mapping[str, Callable[[_Work, Step], None]] = {
    "encode": _Work.encode,
    "index": _Work.index,
    "search": _Work.search,
    "bm25-index": _Work.index_for_bm25,
    "bm25-search": _Work.search_with_bm25,
}
