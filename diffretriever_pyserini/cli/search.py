"""`diffretriever search`: one query, answered on the terminal, or a topic file, whose run is written."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..cluster.options import ClusterOptions, add_ray_options, cluster_options
from ..errors import InputError
from ..indexes.options import MultiOptions
from ..searching.options import ANSWER_HITS, SearchOptions, Signal
from ..settings import Count, Effort, Masks, Weight, add_options, from_arguments, parser_of
from . import qdrant
from .sources import TOPICS, add_topics, split_of
from .unused import DEVICE, note_unused

_HELP = "search an index with one query, or with a topic file and write a TREC run"
_EXAMPLES = """examples:
  diffretriever search --index INDEX --query "how tall is the tower"
  diffretriever search --index INDEX --topics topics.tsv --output run.txt
  diffretriever search --index INDEX --topics topics.tsv --mode dense --hits 100 --output run.dense.txt
  diffretriever search --index INDEX --topics topics.tsv --mode dense,multi,lexical --weights multi=2 --output run.txt
  diffretriever search --index INDEX --topics topics.tsv --mode dense,lexical,bm25 --output run.txt
  diffretriever search --index STORE --topics topics.tsv --mode multi --output run.exact.txt
  diffretriever search --index INDEX --topics topics.tsv --output run.txt --ray auto
  diffretriever search --index INDEX --topics queries.jsonl --remove-query --output run.txt --json
  diffretriever search --index INDEX --topics data/nfcorpus --split dev --output run.txt
  diffretriever search --index INDEX --topics dl19-passage --output run.txt
  diffretriever search --qdrant http://localhost:6333 --collection passages --query "how tall is the tower"
  diffretriever search --qdrant http://localhost:6333 --collection passages --topics topics.tsv --output run.txt
  diffretriever search --dense-index D --lexical-index L --encoder diffretriever --topics topics.tsv --output run.txt
An INDEX comes from `diffretriever index` (with --text, it has titles, texts and the signal bm25), a STORE (searched
exactly) from `diffretriever encode`; D and L from `pyserini.encode ... --to-faiss` and `pyserini.index.lucene`.
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "search",
        help=_HELP,
        description=_HELP,
        epilog=_EXAMPLES + TOPICS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    queries = parser.add_mutually_exclusive_group(required=True)
    queries.add_argument("--query", metavar="TEXT", help="one query; its best passages are printed")
    add_topics(parser, queries)
    parser.add_argument("--output", type=parser_of(Path), metavar="RUN", help="TREC run to write, for --topics")
    parser.add_argument("--tag", default="diffretriever", help="last column of the run (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON: the passages, or counts and times of the run")
    hits = f"passages per query (default: 1000 with --topics, {ANSWER_HITS} with --query)"
    parser.add_argument("--hits", type=parser_of(Count), metavar="N", help=hits)
    add_search_options(parser, skip=("hits",))
    add_ray_options(parser)
    qdrant.add_search_options(parser)
    parser.set_defaults(function=_run)
    return parser


def add_search_options(parser: argparse.ArgumentParser, skip: Collection[str] = ()) -> None:
    """Add the options that every search of an index has, without the fields of SearchOptions in ``skip``."""
    parser.add_argument("--index", type=Path, metavar="DIR", help="folder that `diffretriever index` made")
    parser.add_argument("--dense-index", type=Path, metavar="DIR", help="FAISS folder of Pyserini's own commands")
    parser.add_argument("--lexical-index", type=Path, metavar="DIR", help="Lucene impact index of Pyserini's commands")
    parser.add_argument("--multi-index", type=Path, metavar="DIR", help="multi-vector index or store")
    parser.add_argument(
        "--text-index", type=Path, metavar="DIR", help="Lucene index of the texts, for bm25; may be added to --index"
    )
    parser.add_argument(
        "--mode",
        metavar="MODE",
        help="dense, multi, lexical, bm25, hybrid (multi or else dense, with lexical), or a comma-separated list of "
        "signals, which are fused (default: hybrid where that is possible)",
    )
    groups = add_options(parser, SearchOptions, skip)
    groups["hybrid"].add_argument(
        "--weights", nargs="+", type=_weight, default=[], metavar="SIGNAL=W", help="weights of signals other than 1"
    )
    add_options(parser, MultiOptions)
    count = parser_of(Count)
    encoder = parser.add_argument_group("query encoder")
    encoder.add_argument("--encoder", metavar="NAME", help="default: the one that the index names")
    encoder.add_argument("--device", default=DEVICE, help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    encoder.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
    encoder.add_argument(
        "--max-length", type=count, metavar="N", help="tokens per query; can only shorten the model's own length"
    )
    encoder.add_argument(
        "--k-query", type=parser_of(Masks), metavar="K", help="masks per query (default: the model's own)"
    )
    effort = parser_of(Effort)
    groups["speed"].add_argument("--nprobe", type=effort, metavar="N", help="lists that an IVF index scans")
    groups["speed"].add_argument("--ef-search", type=effort, metavar="N", help="candidates that an HNSW index keeps")


def _run(arguments: argparse.Namespace) -> None:
    from ..evaluation.runs import run_writer
    from ..files.outputs import refuse_inputs
    from ..plugin.names import read_topics

    if arguments.query is not None and arguments.hits is None:
        arguments.hits = ANSWER_HITS
    options, cluster = options_of(arguments), cluster_options(arguments)
    if (arguments.query is None) == (arguments.output is None):
        raise InputError("--topics needs --output RUN, the file of the run; --query prints passages, and takes none.")
    if arguments.query is not None:
        _answer(arguments, options, cluster)
        return
    refuse_inputs({"--output": arguments.output}, {"--topics": arguments.topics} | folders_of(arguments))
    refuse_inputs({"--output": arguments.output}, {"--qdrant": qdrant.collection_folder(arguments)})
    # Before the model is loaded, so that a broken file fails at once.
    topics = read_topics(arguments.topics, split_of(arguments, arguments.topics))
    # The run is opened before the model as well, so that a wrong path fails at once.
    with (
        run_writer(arguments.output, arguments.tag) as write,
        qdrant.collection_of(arguments) or index_of(arguments, cluster) as index,
    ):
        summary = _search(index, topics, options, arguments.mode, write)
    summary = {"output": str(arguments.output), **summary}
    print(json.dumps(summary, indent=2) if arguments.json else _text(summary))


def _answer(arguments: argparse.Namespace, options: SearchOptions, cluster: ClusterOptions | None) -> None:
    """Print the best passages of ``--query``."""
    from ..searching.answers import answer

    with qdrant.collection_of(arguments) or index_of(arguments, cluster) as index:
        result = answer(index, arguments.query, arguments.mode, options)
    if arguments.json:
        print(json.dumps(asdict(result), indent=2))
    elif sys.stdout.isatty():
        _print_marked(result)
    else:
        print(result)


def _print_marked(result: Any) -> None:
    """Print an answer as wide as the terminal, with its marked words in colour."""
    from rich.padding import Padding
    from rich.text import Text

    from ..evaluation.report import text_console

    console = text_console(sys.stdout, shutil.get_terminal_size().columns)
    for indent, line, marks in result.lines():
        text = Text(line, style="" if indent else "bold")
        for start, end in marks:
            text.stylize("bold yellow", start, end)
        console.print(Padding.indent(text, indent))
    if result.note is not None:
        console.print(result.note)


def options_of(arguments: argparse.Namespace) -> SearchOptions:
    """The SearchOptions of the arguments of :func:`add_search_options`."""
    return from_arguments(SearchOptions, arguments, weights=dict(arguments.weights))


def _weight(text: str) -> tuple[str, str]:
    signal, equals, weight = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write a signal and a number, for example multi=2")
    for value, hint in ((signal, Signal), (weight, Weight)):
        try:
            parser_of(hint)(value)
        except argparse.ArgumentTypeError as problem:
            raise argparse.ArgumentTypeError(f"{text}: {problem}") from problem
    return signal, weight


def folders_of(arguments: argparse.Namespace) -> dict[str, Path | None]:
    """The folders that the arguments of :func:`add_search_options` name, by option."""
    names = ("index", "dense-index", "lexical-index", "multi-index", "text-index")
    return {f"--{name}": getattr(arguments, name.replace("-", "_")) for name in names}


def index_of(arguments: argparse.Namespace, cluster: ClusterOptions | None = None) -> Any:
    """Open the index that the arguments of :func:`add_search_options` name, here or on the nodes of ``cluster``."""
    from ..searching import open_index, separate_folders
    from ..searching.folder import read_index, with_texts

    parameters = (("nprobe", arguments.nprobe), ("efSearch", arguments.ef_search))
    separate = (arguments.dense_index, arguments.lexical_index, arguments.multi_index)
    text = arguments.text_index
    if arguments.index is None:
        folder = separate_folders(*separate, text)
    elif separate != (None, None, None):
        raise InputError("give either --index, or some of --dense-index, --multi-index and --lexical-index.")
    else:
        folder = read_index(arguments.index)
        folder = folder if text is None else with_texts(folder, text)
    note_unused(arguments, folder, of_vectors=("dense",))
    options = dict(
        mode=arguments.mode,
        parameters={name: value for name, value in parameters if value is not None},
        multi_options=from_arguments(MultiOptions, arguments),
        **{name: getattr(arguments, name) for name in ("device", "dtype", "k_query", "max_length")},
    )
    if cluster is None:
        return open_index(folder, arguments.encoder, **options)
    from ..cluster.searching import open_on_ray

    return open_on_ray(folder, cluster, arguments.encoder, **options)


def _search(index: Any, topics: dict[str, str], options: Any, mode: str | None, write: Any) -> dict[str, Any]:
    """Search, pass each query's hits to ``write``, and return counts and times."""
    from tqdm.auto import tqdm

    empty: list[str] = []
    writing = 0.0
    mode = index.open(mode)
    with tqdm(total=len(topics), desc=f"Searching ({mode})", unit=" queries", disable=None) as bar:
        for batch in index.batches(topics, mode, options):
            started = time.perf_counter()
            for qid, hits in batch.items():
                write(qid, hits)
                if not hits:
                    empty.append(qid)
            writing += time.perf_counter() - started
            bar.update(len(batch))
    seconds = {stage: round(value, 4) for stage, value in (*index.seconds.items(), ("write", writing))}
    searching = sum(value for stage, value in seconds.items() if stage != "open")
    signals = index.folder.signals(mode)
    return {
        "mode": mode,
        "signals": list(signals),
        "hits": options.hits,
        "depth": options.listed(len(signals)),
        "fusion": options.fusion if len(signals) > 1 else None,
        "weights": {signal: index.weights(options).get(signal, 1.0) for signal in signals}
        if len(signals) > 1
        else None,
        "exact": "multi" in signals and index.searcher("multi").exact,
        "queries": len(topics),
        "without_results": empty,
        "seconds": seconds,
        "ms_per_query": {
            stage: round(1000 * value / len(topics), 4) for stage, value in seconds.items() if stage != "open"
        },
        "queries/s": round(len(topics) / max(searching, 1e-9), 2),
    }


def _text(summary: dict[str, Any]) -> str:
    """The summary as text."""
    times = ", ".join(f"{stage} {value:.2f} s" for stage, value in summary["seconds"].items())
    mode = f"hybrid: {' + '.join(summary['signals'])}" if summary["mode"] == "hybrid" else summary["mode"]
    mode += ", exact" if summary["exact"] else ""
    if summary["fusion"]:
        weights = ", ".join(f"{signal} {weight:.3g}" for signal, weight in summary["weights"].items())
        mode += f", {summary['fusion']} over lists of {summary['depth']:,}, weights {weights}"
    lines = [
        f"{_counted(summary['queries'])} ({mode}, at most {summary['hits']:,} hits): {summary['output']}",
        f"  {summary['queries/s']:,.1f} queries/s; time by stage: {times}",
    ]
    empty = summary["without_results"]
    if empty:
        lines.append(f"  {_counted(len(empty))} without results, for instance {empty[0]}")
    return "\n".join(lines)


def _counted(queries: int) -> str:
    return f"{queries:,} {'query' if queries == 1 else 'queries'}"
