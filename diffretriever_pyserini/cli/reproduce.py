"""`diffretriever reproduce`: experiments by name, their commands, and whether they give the published scores."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..experiments.options import ReproduceOptions
from ..settings import add_options, from_arguments, parser_of
from .format import size

if TYPE_CHECKING:
    from ..experiments.plan import Plan
    from ..experiments.records import Experiment

_HELP = "run a published experiment by its name, and compare the scores"
_DETAILS = """\
list shows the experiments that ship with the package. show prints the commands of one, its published scores with their
sources, and an estimate of hours and bytes. run encodes, indexes, searches and measures, writes results.md and
results.json, and ends with exit code 1 if a score differs by more than its tolerance. After a kill, run the same
command again: finished steps are not done again. NAME may be a YAML file of your own.

examples:
  diffretriever reproduce list
  diffretriever reproduce show diffretriever-llada-8b-single
  diffretriever reproduce run bm25 --collections scifact --folder scifact=data/scifact
  diffretriever reproduce run diffretriever-llada-8b-single --collections scifact --device cuda
  diffretriever reproduce run diffretriever-mini --folder nfcorpus=data/nfcorpus cranfield=data/cranfield cacm=data/cacm
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "reproduce",
        help=_HELP,
        description=_HELP,
        epilog=_DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=("list", "show", "run"), help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="an experiment, or a YAML file")
    parser.add_argument("--output", type=parser_of(Path), metavar="DIR", help="default: reproduce/NAME")
    parser.add_argument("--collections", nargs="+", default=[], metavar="C", help="only these (default: all)")
    parser.add_argument("--modes", nargs="+", default=[], metavar="M", help="only rows of these modes (default: all)")
    parser.add_argument(
        "--folder", nargs="+", type=_bound, default=[], metavar="C=DIR", help="collections as folders in BEIR layout"
    )
    add_options(parser, ReproduceOptions)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(function=_run, continues=True)
    return parser


def _bound(text: str) -> tuple[str, Path]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write a collection and its folder, for example scifact=data/scifact"
        )
    return name, Path(folder).expanduser()


def _run(arguments: argparse.Namespace) -> int:
    from ..experiments.plan import Plan
    from ..experiments.reading import list_experiments, read_experiment, selected, unnamed, with_folders

    if arguments.action == "list":
        if arguments.name is not None:
            raise InputError(f"list takes no name; `diffretriever reproduce show {arguments.name}` shows one.")
        _list(list_experiments(), arguments.json)
        return 0
    if arguments.name is None:
        raise InputError(
            f"{arguments.action} needs the name of an experiment; `diffretriever reproduce list` shows all."
        )
    experiment = with_folders(read_experiment(arguments.name), dict(arguments.folder))
    rows = selected(experiment, arguments.collections, arguments.modes)
    if arguments.action == "show":
        experiment = with_folders(experiment, unnamed(experiment))
    output = arguments.output or Path("reproduce") / experiment.name
    plan = Plan(experiment, from_arguments(ReproduceOptions, arguments, output=output), rows)
    if arguments.action == "show":
        _show(plan, arguments.json)
        return 0
    return _reproduce(plan, arguments.json)


def _list(experiments: dict[str, Experiment], as_json: bool) -> None:
    from ..evaluation.report import text_table

    header = ["experiment", "rows", "published", "description"]
    rows = []
    for name, one in experiments.items():
        known = sum(row.published is not None for row in one.rows)
        rows.append([name, str(len(one.rows)), str(known), one.description])
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows], indent=2))
        return
    print(text_table(header[:3], [row[:3] for row in rows]))
    print("\n" + "\n".join(f"{row[0]}: {row[3]}." for row in rows))


def _show(plan: Plan, as_json: bool) -> None:
    from ..experiments.show import as_json as plain
    from ..experiments.show import as_text

    print(json.dumps(plain(plan), indent=2) if as_json else as_text(plan, size))


def _reproduce(plan: Plan, as_json: bool) -> int:
    import sys

    from ..evaluation.report import text_table
    from ..experiments.run import Readers, reproduce
    from ..plugin.names import read_qrels, read_topics

    stream = sys.stderr if as_json else sys.stdout
    results = reproduce(plan, Readers(read_topics, read_qrels), lambda line: print(line, file=stream, flush=True))
    if as_json:
        print(json.dumps(results.as_json(), indent=2))
    else:
        print(f"\n{text_table(*results.table())}\n\n{results.sentence} {plan.output / 'results.md'}")
    return 1 if results.differing else 0
