"""``diffretriever index``: a store into a FAISS index and a Lucene impact index that Pyserini reads."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..errors import DiffRetrieverError
from .format import size

_HEAP_MEGABYTES = 192  # enough to write an index of any size; a program that also searches needs more
_HELP = "Build FAISS, Lucene impact and multi-vector indexes from a store, in bounded memory."
_DETAILS = """\
With none of --dense, --lexical and --multi the first two are built, the dense one flat. The output appears when it is
complete; after a kill run the command again. Sides of the same store that are there already stay. Pyserini searches
OUTPUT/dense, OUTPUT/multi and OUTPUT/lexical with its own commands.

dense indexes, by bytes a passage at dimension 384 (4096):
  flat   1536 (16384)  exact
  hnsw   1808 (16656)  a graph over exact vectors: fast to search, slow to build
  sq8     384 (4096)   8 bits a component; scans everything, like flat
  pq       48 (512)    one byte for eight components; scans everything
  ivfpq    56 (520)    as pq, and only a sixteenth of the lists is read: for large collections

--multi keeps all K vectors of a passage for MaxSim, compressed: a sixteenth of float16, unless --bytes-per-vector says
otherwise. For exact MaxSim no index is needed: `diffretriever search --index STORE --mode multi`.

examples:
  diffretriever index --store store --output index
  diffretriever index --store store --output index --multi --lexical
  diffretriever index --store store --output index --multi --bytes-per-vector 24 --refine int8
  diffretriever index --store store --output index --dense ivfpq --lexical
  diffretriever index --store store --output dense-only --dense hnsw --threads 8 --max-memory 64
  diffretriever index --store store --output lexical-only --lexical
"""


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add this command."""
    parser = commands.add_parser(
        "index", help=_HELP, description=_HELP, epilog=_DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="folder that `diffretriever encode` wrote")
    parser.add_argument("--output", type=Path, required=True, metavar="INDEX", help="folder of the indexes")
    parser.add_argument("--dense", choices=("flat", "sq8", "pq", "ivfpq", "hnsw"), help="build this FAISS index")
    parser.add_argument("--lexical", action="store_true", help="build the Lucene impact index")
    multi = parser.add_argument_group("multi-vector index")
    multi.add_argument("--multi", action="store_true", help="keep all K vectors, compressed, for MaxSim")
    multi.add_argument(
        "--bytes-per-vector", type=int, metavar="N", help="of a passage's codes, divided by K (default: H/8)"
    )
    multi.add_argument("--dim", type=int, metavar="D", help="components kept (default: 99.9 %% of the energy)")
    multi.add_argument("--refine", choices=("int8",), help="keep the vectors on disk, too, for the best passages")
    parser.add_argument("--encoder", metavar="NAME", help="the store's encoder, if its name or place has changed")
    parser.add_argument("--threads", type=int, metavar="N", help="for FAISS (default: all; 1 for hnsw)")
    parser.add_argument(
        "--max-memory", type=float, metavar="GB", help="for flat and hnsw (default: 80 %% of what is free)"
    )
    parser.add_argument("--gpu", action="store_true", help="train ivfpq on the GPUs")
    parser.add_argument("--no-verify", action="store_true", help="do not check the parts' checksums")
    parser.add_argument("--quiet", action="store_true", help="no bar, no summary")
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..indexes.build import IndexOptions, build_index
    from ..indexes.multivector.build import MultiBuild
    from ..model.encoder_names import parse_encoder_name
    from ..runtime.java import bound_heap

    both = arguments.dense is None and not arguments.lexical and not arguments.multi
    chosen = {name: getattr(arguments, name) for name in ("bytes_per_vector", "dim", "refine")}
    if not arguments.multi and any(value is not None for value in chosen.values()):
        raise DiffRetrieverError("--bytes-per-vector, --dim and --refine belong to --multi: add it.")
    if arguments.max_memory is not None and not arguments.max_memory > 0:
        raise DiffRetrieverError(f"--max-memory {arguments.max_memory}: give gigabytes, more than 0.")
    options = IndexOptions(
        dense="flat" if both else arguments.dense,
        lexical=both or arguments.lexical,
        multi=MultiBuild(**chosen) if arguments.multi else None,
        threads=arguments.threads,
        max_memory=None if arguments.max_memory is None else int(arguments.max_memory * 1e9),
        encoder=parse_encoder_name(arguments.encoder).target if arguments.encoder else None,
        verify=not arguments.no_verify,
        gpu=arguments.gpu,
        quiet=arguments.quiet,
    )
    bound_heap(_HEAP_MEGABYTES)
    started = time.perf_counter()
    facts = build_index(arguments.store, arguments.output, options)
    if not arguments.quiet:
        print(_summary(facts, arguments.output, time.perf_counter() - started))


def _summary(facts: dict, output: Path, seconds: float) -> str:
    """What was made, and how large it is."""
    from ..indexes.multivector.manifest import CODEC, recall_text

    lines = [f"{facts['passages']:,} passages indexed in {seconds:,.1f} s: {output}"]
    for half in ("dense", "lexical"):
        if facts[half]:
            what = facts[half].get("kind") or f"{facts[half]['documents']:,} passages with terms"
            lines.append(f"  {output / half}: {what}, {_taken(output / half)}")
    if facts["multi"]:
        told = facts["multi"]["bytes_per_passage"]
        shared = size((output / "multi" / CODEC).stat().st_size)
        lines.append(f"  {output / 'multi'}: {told:,} bytes a passage, {shared} for all, {_taken(output / 'multi')}")
        lines.append(f"    {recall_text(facts['multi']['recall'])}")
    return "\n".join(lines)


def _taken(folder: Path) -> str:
    """Bytes of the files in ``folder``."""
    return size(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()))
