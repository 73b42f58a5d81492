"""``diffretriever encode``: encode a corpus of any size once, into a store for all indexes."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cluster.options import ClusterOptions, add_ray_options, cluster_options
from ..encoding.options import EncodeOptions
from ..errors import DiffRetrieverError
from ..settings import Count, Masks, add_options, from_arguments, parser_of
from .format import counted

if TYPE_CHECKING:
    from ..corpora.corpus import Corpus
    from ..encoding.progress import Progress
    from .cluster import ClusterView

_HELP = "Encode a corpus into a store: K vectors and term weights of each passage, from one forward pass."
_DETAILS = """\
A corpus is a Pyserini JSONL folder, a BEIR folder, Tevatron JSONL, MS MARCO TSV, Parquet or Arrow files, the hub id of
a data set, or irds:NAME of ir_datasets; .gz and .zst files are read directly. The store is written in parts, and every
part is complete: after a kill or a full disk, run the same command again to continue. Then build indexes with
`diffretriever index`.

examples:
  diffretriever encode --corpus corpus.jsonl --output store
  diffretriever encode --corpus part1.jsonl.gz part2.jsonl.gz --output store --on-error skip
  diffretriever encode --encoder my-checkpoint --corpus corpus --output store --device cuda --dtype bfloat16
  diffretriever encode --encoder my-checkpoint --corpus corpus --output store --devices cuda:0,cuda:1
  diffretriever encode --corpus corpus --output store --ray auto --shards 64 --gpus-per-worker 1 --dtype bfloat16
  diffretriever encode --corpus corpus --output store --shard-id $SLURM_ARRAY_TASK_ID --shard-num 16 --device cuda
"""


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add this command."""
    parser = commands.add_parser(
        "encode", help=_HELP, description=_HELP, epilog=_DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="diffretriever", metavar="NAME", help="model (default: %(default)s)")
    parser.add_argument(
        "--corpus", nargs="+", required=True, metavar="SOURCE", help="files, folders, hub ids or irds:NAME"
    )
    parser.add_argument("--output", type=parser_of(Path), required=True, metavar="STORE", help="folder of the store")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--devices", metavar="A,B", help="several devices of this machine, one process each")
    parser.add_argument("--one-device", dest="devices", action="store_const", const=None, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help="of the model: float32, bfloat16, float16 (default: float32 on the CPU)")
    parser.add_argument(
        "--k-passage", type=parser_of(Masks), metavar="K", help="masks per passage (default: the model's own)"
    )
    add_options(parser, EncodeOptions)
    add_ray_options(parser, gpus=True)
    parser.add_argument(
        "--shards", type=parser_of(Count), metavar="N", help="with --ray: number of shards, at least one per worker"
    )
    parser.add_argument("--quiet", action="store_true", help="no bar, no summary")
    parser.add_argument("--json", action="store_true", help="progress and summary as JSON lines on standard output")
    parser.set_defaults(function=_run, continues=True)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    cluster = cluster_options(arguments)
    if cluster is not None:
        figures, lines = _encode_on_ray(arguments, cluster)
        shard = {"shards": arguments.shards}
    elif arguments.shards is not None:
        raise DiffRetrieverError(
            "--shards belongs to --ray; without it, each process has its --shard-id and --shard-num."
        )
    elif arguments.devices is None:
        shard = {"shard": arguments.shard_id, "shards": arguments.shard_num}
        figures, lines = _encode(arguments), list[str]()
    else:
        from .devices import encode_on_each

        figures, lines = encode_on_each(arguments)
        shard = {"shards": len(lines)}
    if arguments.json:
        print(json.dumps(shard | {"summary": figures}))
    elif not arguments.quiet:
        print("\n".join([_summary(figures, arguments.output), *lines]))


def _encode(arguments: argparse.Namespace) -> dict[str, Any]:
    """Encode in this process and return the figures of the summary."""
    from ..corpora.corpus import Corpus
    from ..encoding.job import encode_corpus
    from ..encoding.progress import Progress
    from ..files.outputs import refuse_inputs
    from ..model.encoder_names import parse_encoder_name
    from ..model.retriever import DiffRetriever

    options = from_arguments(EncodeOptions, arguments)
    corpus = Corpus(arguments.corpus)  # before the model is loaded, so that a wrong path fails at once
    refuse_inputs({"--output": arguments.output}, {"--corpus": corpus.folders})
    name = parse_encoder_name(arguments.encoder).target
    model = DiffRetriever.from_pretrained(
        name, device=arguments.device, dtype=arguments.dtype, k_passage=arguments.k_passage
    )
    log = sys.stdout if arguments.json else None
    progress = Progress(model, arguments.quiet, log, options.shard, options.shards)
    if arguments.json or (sys.stderr.isatty() and not arguments.quiet):
        threading.Thread(target=_count, args=(corpus, options, progress), daemon=True).start()
    return encode_corpus(model, corpus, arguments.output, options, progress)


def _encode_on_ray(arguments: argparse.Namespace, cluster: ClusterOptions) -> tuple[dict[str, Any], list[str]]:
    """Encode on a cluster; returns the figures of all shards, and no lines."""
    from ..cluster.encoding import EncodeTask, encode_on_ray
    from ..corpora.corpus import Corpus
    from ..files.outputs import refuse_inputs
    from .cluster import ClusterView

    if arguments.devices is not None or (arguments.shard_id, arguments.shard_num) != (0, 1):
        raise DiffRetrieverError("--ray makes its own shards and selects the devices: omit --devices and --shard-….")
    if arguments.shards is None:
        raise DiffRetrieverError("--ray needs --shards N: at least one shard per worker, better some more.")
    options = replace(from_arguments(EncodeOptions, arguments), shards=arguments.shards)
    corpus = Corpus(arguments.corpus)
    refuse_inputs({"--output": arguments.output}, {"--corpus": corpus.folders})
    task = EncodeTask(
        arguments.encoder,
        tuple(arguments.corpus),
        str(arguments.output),
        options,
        "cuda" if cluster.gpus_per_worker else arguments.device,
        arguments.dtype,
        arguments.k_passage,
    )
    log = sys.stdout if arguments.json else None
    with ClusterView("Encoding", options.shards, arguments.quiet, log) as view:
        if log is None and sys.stderr.isatty() and not arguments.quiet:
            threading.Thread(target=_count, args=(corpus, replace(options, shards=1), view), daemon=True).start()
        figures, _ = encode_on_ray(task, cluster, view)
    return figures, []


def _count(corpus: Corpus, options: EncodeOptions, progress: Progress | ClusterView) -> None:
    """Count the corpus during encoding, to estimate the remaining time; hub data is not fetched a second time."""
    if all(Path(name).exists() for name in corpus.files):
        with contextlib.suppress(DiffRetrieverError):  # encoding raises the same error
            progress.expect(options.rows_of_shard(sum(1 for _ in corpus.rows())))


def _summary(figures: dict[str, Any], output: Path) -> str:
    """The summary as text."""
    lines = [f"{counted(figures['passages'], 'passage')} in {counted(figures['parts'], 'part')}: {output}"]
    if figures["kept"]:
        lines.append(f"  {counted(figures['kept'], 'part')} existed already")
    if figures["skipped"]:
        lines.append(
            f"  {counted(figures['skipped'], 'row')} skipped; `diffretriever store {output} --skipped` lists them"
        )
    if figures["encoded"]:
        share = f", {figures['MFU']:.0%} of the device's peak" if "MFU" in figures else ""
        rates = f"{figures['passages/s']:,.1f} passages/s, {figures['tokens/s']:,.0f} tokens/s{share}"
        lines.append(f"  {figures['seconds']:,.1f} s, {rates}")
        times = [f"{name.removeprefix('seconds_')} {figures[name]:,.1f} s" for name in figures if "seconds_" in name]
        if times:
            lines.append(f"  time by stage: {', '.join(times)} (texts and write: time spent waiting for them)")
    return "\n".join(lines)
