"""From an experiment to its steps: one store and one index per corpus, one run per collection and mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from .measures import with_relevance
from .options import ReproduceOptions
from .records import BM25, Collection, Experiment, Row

Kind = Literal["encode", "index", "search", "bm25-index", "bm25-search"]
HITS = 1000


@dataclass(frozen=True)
class Step:
    """A part of the work that is recorded when it is complete.

    Attributes
    ----------
    collection : whose topics are searched, or one with the corpus that is encoded or indexed.
    corpus : the name of that corpus in the output folder.
    mode : of a search.
    """

    kind: Kind
    collection: str
    corpus: str
    mode: str = ""

    @property
    def id(self) -> str:
        """Its name in the record, and of its log file."""
        if self.kind in ("search", "bm25-search"):
            return f"search-{self.collection}-{self.mode.replace(',', '+')}"
        return f"{self.kind}-{self.corpus}"

    @property
    def title(self) -> str:
        """Its name for people."""
        if self.kind in ("search", "bm25-search"):
            return f"search {self.collection}: {self.mode}"
        return f"{'index for BM25:' if self.kind == 'bm25-index' else self.kind} {self.corpus}"


@dataclass(frozen=True)
class Plan:
    """An experiment with its options: the steps in order, and the path of everything that they make.

    ``chosen`` are some of its rows; None is all. What a store holds does not depend on them, so others can follow.
    """

    experiment: Experiment
    options: ReproduceOptions
    chosen: tuple[Row, ...] | None = None

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows that are measured."""
        return self.experiment.rows if self.chosen is None else self.chosen

    @property
    def output(self) -> Path:
        """The folder of everything."""
        return self.options.output.expanduser()

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """What is done, in order; each step once.

        Raises
        ------
        InputError
            For a collection that has no names, and no folder.
        """
        steps: list[Step] = []
        for name, mode in self.searches:
            collection = self.collection(name)
            if None in (collection.corpus_source(), collection.topics_source(), collection.qrels_source()):
                raise InputError(
                    f"{name}: Pyserini and ir_datasets do not have this collection; give it in BEIR layout with "
                    f"--folder {name}=DIR, or choose others with --collections."
                )
            corpus = self.corpus_name(name)
            if mode == BM25:
                built = [] if self.ready_index(collection) else [Step("bm25-index", name, corpus)]
                steps += [*built, Step("bm25-search", name, corpus, mode)]
                continue
            first = next((step for step in steps if (step.kind, step.corpus) == ("encode", corpus)), None)
            if first is None:
                steps.append(Step("encode", name, corpus))
                if self.indexed_signals(corpus):
                    steps.append(Step("index", name, corpus))
            steps.append(Step("search", name, corpus, mode))
        return tuple(dict.fromkeys(steps))

    @cached_property
    def searches(self) -> tuple[tuple[str, str], ...]:
        """(collection, mode) of every run; a mean needs those of its members, which have rows of their own."""
        return tuple(dict.fromkeys((row.collection, row.mode) for row in self.own_rows))

    @property
    def own_rows(self) -> tuple[Row, ...]:
        """The rows that have a run: all but the means."""
        return tuple(row for row in self.rows if not self.collection(row.collection).mean_of)

    def measure_of(self, row: Row, name: str | None = None) -> str:
        """The measure of ``row``, on ``name`` if it is a mean: with the collection's level of relevance."""
        collection = self.collection(name or row.collection)
        return with_relevance(row.measure or collection.measure, collection.relevance)

    def collection(self, name: str) -> Collection:
        """The collection ``name``."""
        return self.experiment.collections[name]

    def corpus_name(self, name: str) -> str:
        """The folder name of a collection's corpus: collections with the same corpus share it."""
        collection = self.collection(name)
        if collection.folder is not None or collection.corpus is None:
            return name
        return collection.corpus.partition(":")[2].replace("/", "-") or name

    def ready_index(self, collection: Collection) -> str | None:
        """Pyserini's own index for BM25, unless the texts come from a folder."""
        return collection.pyserini_index if collection.folder is None else None

    @property
    def several(self) -> bool:
        """Whether the experiment searches several vectors per passage."""
        return any("multi" in row.mode.split(",") for row in self.experiment.rows)

    def signals(self, mode: str) -> tuple[str, ...]:
        """What ``mode`` searches; hybrid is multi, or else dense, with lexical."""
        if mode == BM25:
            return ()
        return ("multi" if self.several else "dense", "lexical") if mode == "hybrid" else tuple(mode.split(","))

    def indexed_signals(self, corpus: str) -> tuple[str, ...]:
        """The signals for which the corpus gets an index; exact MaxSim searches the store."""
        modes = [mode for name, mode in self.searches if self.corpus_name(name) == corpus]
        used = {signal for mode in modes for signal in self.signals(mode)}
        if self.experiment.multi == "exact":
            used.discard("multi")
        return tuple(signal for signal in ("dense", "lexical", "multi") if signal in used)

    def exact(self, mode: str) -> bool:
        """Whether ``mode`` searches the store itself."""
        return self.experiment.multi == "exact" and "multi" in self.signals(mode)

    @property
    def encoder(self) -> str:
        """What ``--encoder`` takes: the model's name, or the YAML file of its settings."""
        return self.options.encoder or self.experiment.model or str(self.output / "model.yaml")

    @property
    def config(self) -> Mapping[str, Any] | None:
        """Settings of the experiment's own model, which ``run`` writes as a YAML file; None where a model is named."""
        return None if self.options.encoder else self.experiment.config

    @property
    def vectors(self) -> str:
        """What ``encode --vectors`` takes."""
        return "all" if self.several else "pooled"

    def store(self, corpus: str) -> Path:
        """The store of a corpus."""
        return self.output / "stores" / corpus

    def index(self, corpus: str) -> Path:
        """The index of a corpus."""
        return self.output / "indexes" / corpus

    def bm25(self, corpus: str) -> Path:
        """The folder of a corpus and its index for BM25."""
        return self.output / "bm25" / corpus

    def topics_file(self, name: str) -> Path:
        """The topics of a folder as Pyserini reads them without changing ids.

        The name is a number: Pyserini reads a file with "beir" or "cacm" in its path in another layout.
        """
        return self.output / "topics" / f"{sorted(self.experiment.collections).index(name):02d}.json"

    def qrels_file(self, name: str) -> Path:
        """The judgements of a folder in TREC's layout."""
        return self.topics_file(name).with_suffix(".qrels.txt")

    def run(self, name: str, mode: str) -> Path:
        """The run of a collection in a mode."""
        return self.output / "runs" / f"{name}.{mode.replace(',', '+')}.txt"

    def product(self, step: Step) -> Path:
        """What a step makes."""
        if step.kind in ("search", "bm25-search"):
            return self.run(step.collection, step.mode)
        made = {"encode": self.store(step.corpus), "index": self.index(step.corpus)}
        return made.get(step.kind, self.bm25(step.corpus) / "index")

    def signal_folders(self, step: Step) -> Sequence[tuple[str, Path]]:
        """(signal, folder) of a search whose folders are named one by one: exact MaxSim takes the store."""
        folders = {
            signal: self.store(step.corpus) if signal == "multi" else self.index(step.corpus) / signal
            for signal in self.signals(step.mode)
        }
        return list(folders.items())
