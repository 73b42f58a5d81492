"""`diffretriever train`: fine-tune a model, or plan what such a run needs."""

import argparse
from pathlib import Path
from typing import Any

from ..files.installed import installed_folder
from ..runtime.waiting import waiting_for
from ..settings import AboveZero, Count, add_options, given, parser_of
from ..training.settings import TrainSettings, read_settings

_HELP = "fine-tune a model on queries and passages; or --plan it"
_DETAILS = """A run needs a model, data and an output. All other settings default to the paper's values; set them in the
YAML file or by options (--learning-rate 2e-5 is learning_rate in the file).

examples:
  diffretriever train --config quick.yaml --output out/mine
  diffretriever train --model diffretriever --data pairs.jsonl --output out/mine --negatives 0 --dev-rows 100
  diffretriever train --config my.yaml --resume
  torchrun --nproc-per-node 8 -m diffretriever_pyserini train --config dream-7b-msmarco.yaml
  diffretriever train --config my.yaml --plan --gpus 8

"""
_FILES = f"""These files: {installed_folder("examples") / "train"}
Recipes, and what each setting does: {installed_folder("docs") / "training.md"}
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "train",
        help=_HELP,
        description=_HELP,
        epilog=f"{_DETAILS}{_FILES}",
        usage="%(prog)s [--config FILE] [--setting VALUE ...] [--resume | --plan]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings; options override it")
    parser.add_argument("--resume", action="store_true", help="continue from the last complete checkpoint in --output")
    parser.add_argument(
        "--plan", action="store_true", help="only print whether the run fits in memory, its steps and its checkpoints"
    )
    count, gigabytes = parser_of(Count), parser_of(AboveZero)
    parser.add_argument("--gpus", type=count, default=1, metavar="N", help="for --plan (default: %(default)s)")
    parser.add_argument("--gpu-memory", type=gigabytes, default=80, metavar="GB", help="for --plan (default: 80)")
    add_options(parser, TrainSettings, over_file=True)
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    settings = read_settings(arguments.config, **given(TrainSettings, arguments))
    if arguments.plan:
        from ..training.plan import plan

        print(plan(settings, arguments.gpus, arguments.gpu_memory))
        return
    waiting_for(f"loading {settings.model}")
    from ..files.outputs import refuse_inputs
    from ..training.run import SETTINGS, train

    if not arguments.resume:
        refuse_inputs({"--output": Path(settings.output, SETTINGS)}, {"--config": arguments.config})
    train(settings, resume=arguments.resume)
