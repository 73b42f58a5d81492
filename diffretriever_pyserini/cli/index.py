"""``diffretriever index``: build indexes from a store, which Pyserini reads too."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from ..cluster.options import ClusterOptions, add_ray_options, cluster_options
from ..errors import DiffRetrieverError
from ..indexes.options import MULTI, DenseKind, IndexOptions, MultiBuild
from ..settings import add_options, from_arguments, given, parser_of
from .format import size

if TYPE_CHECKING:
    from ..indexes.job import IndexJob

_HELP = "Build FAISS, Lucene impact, multi-vector and text indexes from a store, in bounded memory."
_DETAILS = """\
Without --dense, --lexical, --multi and --text, a flat dense and a lexical index are built; for the read-outs mean and
last_token, which have no terms, the dense one alone. The output appears when it is complete; after a kill, run the
command again. Existing indexes of the same store stay, and with the same options they are not built again. Pyserini
searches OUTPUT/dense, OUTPUT/multi, OUTPUT/lexical and OUTPUT/text with its own commands.

dense indexes, with bytes per passage at dimension 384 (4096):
  flat   1536 (16384)  exact
  hnsw   1808 (16656)  a graph over exact vectors: fast to search, slow to build
  sq8     384 (4096)   8 bits per component; scans all vectors, like flat
  pq       48 (512)    one byte for eight components; scans all vectors
  ivfpq    56 (520)    like pq, but reads only a sixteenth of the lists: for large collections

--multi keeps all K vectors of each passage for MaxSim, compressed to a sixteenth of float16 (or --bytes-per-vector).
Exact MaxSim needs no index: `diffretriever search --index STORE --mode multi`.
--text keeps titles and texts, which `diffretriever search --query` shows, and adds the signal bm25. They are read from
the files that were encoded, or from --corpus if these have moved.

examples:
  diffretriever index --store store --output index
  diffretriever index --store store --output index --text
  diffretriever index --store store --output index --multi --lexical
  diffretriever index --store store --output index --multi --bytes-per-vector 24 --refine int8
  diffretriever index --store store --output index --dense ivfpq --lexical
  diffretriever index --store store --output dense-only --dense hnsw --threads 8 --max-memory 64
  diffretriever index --store store --output lexical-only --lexical
  diffretriever index --store store --output index --multi --lexical --shards 8 --ray auto
"""


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add this command."""
    parser = commands.add_parser(
        "index", help=_HELP, description=_HELP, epilog=_DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="folder that `diffretriever encode` wrote")
    parser.add_argument("--output", type=parser_of(Path), required=True, metavar="INDEX", help="folder of the indexes")
    parser.add_argument(
        "--dense", choices=get_args(DenseKind), nargs="?", const="flat", help="build this FAISS index (alone: flat)"
    )
    parser.add_argument("--lexical", action="store_true", help="build the Lucene impact index")
    add_options(parser, IndexOptions, skip=("dense", "lexical"))
    multi = parser.add_argument_group("multi-vector index")
    multi.add_argument(
        "--multi",
        action="store_true",
        help="build the compressed index of all K vectors for MaxSim (alone: only this one)",
    )
    add_options(parser, MultiBuild, groups={"multi-vector index": multi})
    add_ray_options(parser)
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..files.outputs import refuse_inputs
    from ..indexes.build import index_job, run_job
    from ..indexes.lucene import HEAP_MEGABYTES
    from ..model.encoder_names import parse_encoder_name
    from ..runtime.java import bound_heap
    from ..store.store import Store

    default = arguments.dense is None and not (arguments.lexical or arguments.multi or arguments.text)
    if not arguments.multi and given(MultiBuild, arguments):
        raise DiffRetrieverError("--bytes-per-vector and --refine belong to --multi: add it.")
    if arguments.encoder:
        arguments.encoder = parse_encoder_name(arguments.encoder).target
    cluster = cluster_options(arguments)
    if cluster is not None and arguments.shards in (None, 1):
        raise DiffRetrieverError("--ray needs --shards N with N above 1: each worker builds shards.")
    refuse_inputs({"--output": arguments.output}, {"--store": arguments.store})
    store = Store(arguments.store)
    options = from_arguments(
        IndexOptions,
        arguments,
        dense="flat" if default else arguments.dense,
        lexical=arguments.lexical or (default and not store.spec.provenance.terms_refused),
        multi=from_arguments(MultiBuild, arguments) if arguments.multi else None,
    )
    bound_heap(HEAP_MEGABYTES)
    started = time.perf_counter()
    job = index_job(store, arguments.output, options)
    facts = run_job(job) if cluster is None else _build_on_ray(job, cluster)
    if not arguments.quiet:
        print(_summary(facts, arguments.output, job.built, time.perf_counter() - started))


def _build_on_ray(job: IndexJob, cluster: ClusterOptions) -> dict:
    """Build the shards on a cluster."""
    from ..cluster.indexing import build_on_ray
    from .cluster import ClusterView

    with ClusterView("Indexing", job.options.shards, job.options.quiet) as view:
        view.expect(len(job.store) * len({signal == MULTI for signal in job.built}))  # multi takes a step of its own
        return build_on_ray(job, cluster, view)


def _summary(facts: dict, output: Path, built: Sequence[str], seconds: float) -> str:
    """The indexes and their sizes as text; those that were not ``built`` now are marked."""
    from ..indexes.multivector.manifest import CODEC, recall_text

    counted = f"{facts['passages']:,} passages"
    lines = [f"{counted} indexed in {seconds:,.1f} s: {output}"]
    if not built:
        lines = [f"{counted}, up to date (--rebuild builds the indexes again): {output}"]
    shards = [output / shard["folder"] for shard in facts.get("shards", [{"folder": "."}])]
    if len(shards) > 1:
        lines[0] += f": {len(shards)} shards"

    def begin(signal: str) -> str:
        folder = output / ("shards/*" if len(shards) > 1 else ".") / signal
        return f"  {folder}: " if signal in built else f"  {folder}: kept, "

    for part in ("dense", "lexical"):
        if facts[part]:
            content = facts[part].get("kind") or f"{facts[part]['documents']:,} passages with terms"
            lines.append(f"{begin(part)}{content}, {_size_of(shards, part)}")
    if facts["multi"]:
        per_passage, codec = facts["multi"]["bytes_per_passage"], size((shards[0] / "multi" / CODEC).stat().st_size)
        content = f"{per_passage:,} bytes per passage, {codec} for the codec, {_size_of(shards, 'multi')}"
        lines += [f"{begin('multi')}{content}", f"    {recall_text(facts['multi']['recall'])}"]
    if facts["text"]:
        lines.append(f"{begin('text')}{facts['text']['documents']:,} texts, {_size_of(shards, 'text')}")
    return "\n".join(lines)


def _size_of(shards: Sequence[Path], signal: str) -> str:
    """Total size of the files of ``signal``."""
    files = (path for shard in shards for path in (shard / signal).rglob("*") if path.is_file())
    return size(sum(path.stat().st_size for path in files))
