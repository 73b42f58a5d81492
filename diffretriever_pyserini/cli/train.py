"""`diffretriever train`: fine-tune a model, or plan what such a run needs."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import ConfigError

_HELP = "fine-tune a model on queries and passages; or --plan it"
_DETAILS = """A run needs a model, data and an output; everything else has the paper's value until it is set, in the
YAML file or by flags (--learning-rate 2e-5 is learning_rate in the file). docs/training.md lists the settings.

examples:
  diffretriever train --config examples/train/quick.yaml --output out/mine
  diffretriever train --model diffretriever --data pairs.jsonl --output out/mine --negatives 0 --dev-rows 100
  diffretriever train --config my.yaml --resume
  torchrun --nproc-per-node 8 -m diffretriever_pyserini train --config examples/train/dream-7b-msmarco.yaml
  diffretriever train --config my.yaml --plan --gpus 8
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
    parser.add_argument(
        "--plan", action="store_true", help="only print whether the run would fit, its steps and checkpoints"
    )
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="for --plan (default: %(default)s)")
    parser.add_argument("--gpu-memory", type=float, default=80, metavar="GB", help="for --plan (default: %(default)s)")
    for flag, kind in _more_flags():
        parser.add_argument(flag, metavar=kind, help=argparse.SUPPRESS)
    parser.set_defaults(function=_run)
    return parser


_ABOVE = {"model", "data", "dev", "output", "on_error"}


def _more_flags() -> list[tuple[str, str]]:
    """A flag for every other setting; they are many, so --help names the file and the documentation instead."""
    from ..training.settings import FIELDS

    return [(f"--{name.replace('_', '-')}", name.upper()) for name in FIELDS if name not in _ABOVE]


def _run(arguments: argparse.Namespace) -> None:
    from ..training.settings import FIELDS, read_settings

    flags = {name: value for name, value in vars(arguments).items() if name in FIELDS}
    settings = read_settings(arguments.config, **flags)
    if arguments.plan:
        from ..training.plan import plan

        if arguments.gpus < 1:
            raise ConfigError(f"--gpus {arguments.gpus} must be at least 1")
        print(plan(settings, arguments.gpus, arguments.gpu_memory))
        return
    from ..training.run import train

    train(settings, resume=arguments.resume)
