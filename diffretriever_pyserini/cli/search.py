"""`diffretriever search`: topics against an index, dense, lexical or both, into a TREC run."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

_HELP = "search an index with a topic file and write a TREC run"
_EXAMPLES = """examples:
  diffretriever search --index INDEX --topics topics.tsv --output run.txt
  diffretriever search --index INDEX --topics topics.tsv --mode dense --hits 100 --output run.dense.txt
  diffretriever search --index INDEX --topics topics.tsv --mode dense,multi,lexical --weights multi=2 --output run.txt
  diffretriever search --index STORE --topics topics.tsv --mode multi --output run.exact.txt
  diffretriever search --index INDEX --topics queries.jsonl --remove-query --output run.txt --json
  diffretriever search --dense-index D --lexical-index L --encoder diffretriever --topics topics.tsv --output run.txt
An INDEX comes from `diffretriever index`, a STORE (searched exactly) from `diffretriever encode`; D and L from
`pyserini.encode ... --to-faiss` and `pyserini.index.lucene`.
Topics: TSV (query id, tab, query), or JSON lines with qid/_id/id and title/query/text; .gz too.
"""
_DECIMALS = 9  # six would make neighbours of a reciprocal rank list equal


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "search",
        help=_HELP,
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--topics", type=Path, required=True, metavar="FILE", help="topic file")
    parser.add_argument("--output", type=Path, required=True, metavar="RUN", help="TREC run to write")
    parser.add_argument("--remove-query", action="store_true", help="drop the passage whose id is the query's")
    parser.add_argument("--tag", default="diffretriever", help="last column of the run (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print counts and times as JSON")
    speed = add_search_options(parser)
    speed.add_argument("--batch-size", type=int, default=32, metavar="N", help="queries a pass (default: %(default)s)")
    parser.set_defaults(function=_run)
    return parser


def add_search_options(parser: argparse.ArgumentParser) -> Any:
    """Add what any search of an index can be told; returns the group of options about speed."""
    parser.add_argument("--index", type=Path, metavar="DIR", help="folder that `diffretriever index` made")
    parser.add_argument("--dense-index", type=Path, metavar="DIR", help="FAISS folder of Pyserini's own commands")
    parser.add_argument("--lexical-index", type=Path, metavar="DIR", help="Lucene impact index of Pyserini's commands")
    parser.add_argument("--multi-index", type=Path, metavar="DIR", help="multi-vector index or store")
    parser.add_argument(
        "--mode",
        metavar="MODE",
        help="dense, multi, lexical, hybrid (multi or else dense, with lexical), or sides with commas between them, "
        "which are fused (default: hybrid where that is possible)",
    )
    parser.add_argument("--hits", type=int, default=1000, metavar="N", help="passages a query (default: %(default)s)")
    fusion = parser.add_argument_group("hybrid")
    fusion.add_argument("--fusion", choices=("minmax", "rrf"), default="minmax", help="default: %(default)s")
    fusion.add_argument(
        "--depth",
        type=int,
        metavar="N",
        help="passages of each list that are fused (default: 1000, or hits where that is more)",
    )
    fusion.add_argument(
        "--alpha",
        type=float,
        default=1.0,
        metavar="A",
        help="lexical weight against 1 for the others (default: %(default)s)",
    )
    fusion.add_argument("--weights", nargs="+", default=[], metavar="SIDE=W", help="weights of sides, where not 1")
    fusion.add_argument("--rrf-k", type=int, default=60, metavar="K", help="constant of rrf (default: %(default)s)")
    encoder = parser.add_argument_group("query encoder")
    encoder.add_argument("--encoder", metavar="NAME", help="default: the one that the index names")
    encoder.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    encoder.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
    encoder.add_argument("--max-length", type=int, metavar="N", help="tokens a query; can only shorten the model's own")
    encoder.add_argument("--k-query", type=int, metavar="K", help="masks a query (default: the model's own)")
    speed = parser.add_argument_group("speed")
    speed.add_argument("--threads", type=int, metavar="N", help="of FAISS and Lucene (default: all processors)")
    speed.add_argument("--nprobe", type=int, metavar="N", help="lists that an IVF index looks into")
    speed.add_argument("--ef-search", type=int, metavar="N", help="candidates that an HNSW index keeps")
    multi = parser.add_argument_group("multi-vector side")
    multi.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="passages to score, never fewer than hits, or depth in a fusion (default: 1.5 x that, or 400 more)",
    )
    multi.add_argument("--refine", type=int, default=200, metavar="N", help="best ones scored by the vectors on disk")
    return speed


def _run(arguments: argparse.Namespace) -> None:
    from ..corpora.topics import read_topics
    from ..errors import InputError
    from ..evaluation.runs import run_writer

    options = options_of(arguments, batch_size=arguments.batch_size, remove_query=arguments.remove_query)
    if arguments.output.resolve() == arguments.topics.resolve():
        raise InputError(
            f"--output {arguments.output} is the topic file: the run would overwrite it; name another file."
        )
    topics = read_topics(arguments.topics)  # before the model: a broken file should not cost its loading time
    # The run is opened before the model, too, so that a wrong path is found in the first second.
    with run_writer(arguments.output, arguments.tag, _DECIMALS) as write, index_of(arguments) as index:
        summary = _search(index, topics, options, arguments.mode, write)
    summary = {"output": str(arguments.output), **summary}
    print(json.dumps(summary, indent=2) if arguments.json else _text(summary))


def options_of(arguments: argparse.Namespace, **more: Any) -> Any:
    """The SearchOptions that the arguments of :func:`add_search_options` ask for, and ``more`` of its fields."""
    from ..searching.index import SearchOptions

    return SearchOptions(
        hits=arguments.hits,
        depth=arguments.depth,
        threads=arguments.threads,
        alpha=arguments.alpha,
        weights=_weights(arguments.weights),
        fusion=arguments.fusion,
        rrf_k=arguments.rrf_k,
        **more,
    )


def _weights(told: list[str]) -> dict[str, float]:
    """``side=weight`` arguments."""
    from ..errors import InputError

    try:
        return {side: float(weight) for side, _, weight in (one.partition("=") for one in told)}
    except ValueError as error:
        raise InputError(f"--weights {' '.join(told)}: write sides and numbers, for example multi=2.") from error


def index_of(arguments: argparse.Namespace) -> Any:
    """Open the index that the arguments of :func:`add_search_options` name."""
    from ..errors import InputError
    from ..indexes.multivector.index import MultiOptions
    from ..searching import open_index, separate_folders

    parameters = (("nprobe", arguments.nprobe), ("efSearch", arguments.ef_search))
    separate = (arguments.dense_index, arguments.lexical_index, arguments.multi_index)
    if arguments.index is not None and separate != (None, None, None):
        raise InputError("give either --index, or --dense-index, --multi-index and --lexical-index, not both.")
    return open_index(
        arguments.index if arguments.index is not None else separate_folders(*separate),
        arguments.encoder,
        mode=arguments.mode,
        parameters={name: value for name, value in parameters if value is not None},
        multi_options=MultiOptions(arguments.candidates, arguments.refine),
        **{name: getattr(arguments, name) for name in ("device", "dtype", "k_query", "max_length")},
    )


def _search(index: Any, topics: dict[str, str], options: Any, mode: str | None, write: Any) -> dict[str, Any]:
    """Search, hand each query's hits to ``write`` as they come, and return counts and times."""
    from tqdm import tqdm

    empty: list[str] = []
    writing = 0.0
    mode = index.open(mode)
    with tqdm(total=len(topics), desc=f"Searching ({mode})", unit=" queries", disable=None) as bar:
        for part in index.batches(topics, mode, options):
            started = time.perf_counter()
            for qid, hits in part.items():
                write(qid, hits)
                if not hits:
                    empty.append(qid)
            writing += time.perf_counter() - started
            bar.update(len(part))
    seconds = {stage: round(value, 4) for stage, value in (*index.seconds.items(), ("write", writing))}
    searching = sum(value for stage, value in seconds.items() if stage != "open")
    sides = index.folder.sides(mode)
    return {
        "mode": mode,
        "sides": list(sides),
        "hits": options.hits,
        "depth": options.listed(len(sides)),
        "fusion": options.fusion if len(sides) > 1 else None,
        "exact": "multi" in sides and index.multi.exact,
        "queries": len(topics),
        "without_results": empty,
        "seconds": seconds,
        "ms_per_query": {
            stage: round(1000 * value / len(topics), 4) for stage, value in seconds.items() if stage != "open"
        },
        "queries/s": round(len(topics) / max(searching, 1e-9), 2),
    }


def _text(summary: dict[str, Any]) -> str:
    """What a person wants to know at the end."""
    spent = ", ".join(f"{stage} {value:.2f} s" for stage, value in summary["seconds"].items())
    mode = f"hybrid: {' + '.join(summary['sides'])}" if summary["mode"] == "hybrid" else summary["mode"]
    mode += " by every stored vector" if summary["exact"] else ""
    mode += f", {summary['fusion']} over lists of {summary['depth']:,}" if summary["fusion"] else ""
    lines = [
        f"{_counted(summary['queries'])} ({mode}, at most {summary['hits']:,} hits): {summary['output']}",
        f"  {summary['queries/s']:,.1f} queries/s; where the time went: {spent}",
    ]
    empty = summary["without_results"]
    if empty:
        lines.append(f"  {_counted(len(empty))} found nothing, for instance {empty[0]}")
    return "\n".join(lines)


def _counted(queries: int) -> str:
    return f"{queries:,} {'query' if queries == 1 else 'queries'}"
