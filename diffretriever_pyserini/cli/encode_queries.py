"""`diffretriever encode-queries`: encode queries once, for both signals of a search."""

import argparse
from pathlib import Path
from typing import Any

from ..settings import Batch, Count, parser_of
from .sources import TOPICS, add_topics, split_of

_HELP = "encode a topic file once, for the dense and the lexical index"
_DETAILS = """writes into --output:
  queries.jsonl  {"id", "contents", "vector": {term: impact}}, which LuceneImpactSearcher reads as cached queries;
                 not for the read-outs mean and last_token, which have no terms
  vectors.npy    float32 [queries, dimensions], the pooled vectors for a FAISS index, with ids.txt beside it
  manifest.json  the model, its fingerprint and the settings

examples:
  diffretriever encode-queries --topics topics.tsv --output queries
  python -m pyserini.search.lucene --index L --impact --encoder queries/queries.jsonl --topics topics.tsv --output R
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "encode-queries",
        help=_HELP,
        description=_HELP,
        epilog=_DETAILS + TOPICS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--encoder", default="diffretriever", metavar="NAME", help="model (default: %(default)s)")
    add_topics(parser)
    parser.add_argument("--output", type=parser_of(Path), required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
    parser.add_argument("--batch-size", type=parser_of(Batch), default=32, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--max-length",
        type=parser_of(Count),
        metavar="N",
        help="tokens per query; can only shorten the model's own length",
    )
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from ..encoding.queries import write_encoded_queries
    from ..files.outputs import refuse_inputs
    from ..model.encoder_names import parse_encoder_name
    from ..model.retriever import load_shared
    from ..plugin.names import read_topics

    refuse_inputs({"--output": arguments.output}, {"--topics": arguments.topics})
    # Before the model is loaded, so that a broken file fails at once.
    topics = read_topics(arguments.topics, split_of(arguments, arguments.topics))
    model = load_shared(parse_encoder_name(arguments.encoder).target, device=arguments.device, dtype=arguments.dtype)
    write_encoded_queries(model, topics, arguments.output, arguments.batch_size, arguments.max_length)
    print(f"{len(topics)} queries encoded with {model.config.name}: {arguments.output}")
