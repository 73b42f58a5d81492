"""`diffretriever train`: fine-tune a model, or plan the memory of such a run."""

import argparse
import re
from pathlib import Path
from typing import Any

_HELP = "fine-tune a model on queries and passages; or --plan its memory"
_DETAILS = """A run needs a model, data and an output; everything else has the paper's value until it is set, in the
YAML file or by flags (--learning-rate 2e-5 is learning_rate in the file). docs/training.md lists the settings.

examples:
  diffretriever train --config examples/train/quick.yaml --output out/mine
  diffretriever train --model diffretriever --data pairs.jsonl --output out/mine --negatives 0 --dev-rows 100
  diffretriever train --config my.yaml --resume
  torchrun --nproc-per-node 8 -m diffretriever_pyserini train --config examples/train/dream-7b-msmarco.yaml
  diffretriever train --plan --model dream-7b --gpus 8
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help=_HELP,
        description=_HELP,
        epilog=_DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings; flags go over it")
    parser.add_argument("--model", metavar="NAME", help="base or adapter to start from")
    parser.add_argument("--data", nargs="+", metavar="SOURCE", help=".jsonl, .tsv, .parquet, BEIR folder or hub id")
    parser.add_argument("--dev", nargs="+", metavar="SOURCE", help="development rows; or --dev-rows N from the data")
    parser.add_argument("--output", metavar="DIR", help="folder for the checkpoint, the log and the plot")
    parser.add_argument("--on-error", choices=("stop", "skip"), help="at a bad row (default: stop)")
    parser.add_argument("--resume", action="store_true", help="go on from the last whole checkpoint in --output")
    parser.add_argument("--plan", action="store_true", help="only print what the run would need, with the arithmetic")
    parser.add_argument("--gpus", type=int, default=8, metavar="N", help="for --plan (default: %(default)s)")
    parser.add_argument("--gpu-memory", type=float, default=80, metavar="GB", help="for --plan (default: %(default)s)")
    parser.add_argument(
        "--zero",
        type=int,
        choices=(0, 2, 3),
        help="for --plan: 0 plain DDP, 2 ZeRO-2, 3 FSDP (default: as --config says; 2 without one)",
    )
    for flag, kind in _more_flags():
        parser.add_argument(flag, metavar=kind, help=argparse.SUPPRESS)
    parser.set_defaults(function=_run)
    return parser


_ABOVE = {"model", "data", "dev", "output", "on_error"}


def _more_flags() -> list[tuple[str, str]]:
    """A flag for every other setting; they are many, so --help names the file and the documentation instead."""
    from diffretriever_pyserini.training.settings import FIELDS

    return [(f"--{name.replace('_', '-')}", name.upper()) for name in FIELDS if name not in _ABOVE]


def _run(arguments: argparse.Namespace) -> None:
    from diffretriever_pyserini.training.settings import FIELDS, read_settings

    flags = {name: value for name, value in vars(arguments).items() if name in FIELDS}
    if arguments.plan:
        _plan(arguments, flags)
        return
    from diffretriever_pyserini.training.run import train

    settings = read_settings(arguments.config, **flags)
    train(settings, resume=arguments.resume)


def _plan(arguments: argparse.Namespace, flags: dict[str, Any]) -> None:
    from diffretriever_pyserini.training.plan import PAPER, plan, shape_of, stage_of
    from diffretriever_pyserini.training.settings import read_settings

    if arguments.config is None:
        name = arguments.model or "dream-7b"
        family = "llada" if re.search("llada", name, re.IGNORECASE) else "dream"
        flags = PAPER[family] | {key: value for key, value in flags.items() if value is not None}
    given = {"data": ["(none)"], "output": "(none)"} if arguments.config is None else {}
    settings = read_settings(arguments.config, **given | flags | {"model": arguments.model or flags.get("model")})
    zero = arguments.zero
    if zero is None:
        zero = 2 if arguments.config is None else stage_of(settings)
    print(plan(settings, shape_of(settings.model), arguments.gpus, arguments.gpu_memory, zero))
