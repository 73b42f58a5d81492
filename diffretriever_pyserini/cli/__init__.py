"""The command `diffretriever`: one module per sub-command, each with `add_to(commands)` and a function that runs it."""

import argparse
import difflib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from ..errors import DiffRetrieverError, sentence, trace_wanted
from ..files.installed import installed_folder
from ..runtime.waiting import shown
from . import (
    check,
    demo,
    doctor,
    encode,
    encode_queries,
    evaluate,
    explain,
    export,
    index,
    mine,
    models,
    multi,
    qdrant,
    reproduce,
    search,
    store,
    train,
)

_DESCRIPTION = "DiffRetriever inside Pyserini: dense and lexical retrieval from one pass of a diffusion language model."
_EXAMPLES = """examples:
  diffretriever demo                          run everything on the documentation inside this Python
  diffretriever demo --dataset my-collection  the same on a collection in BEIR layout
  diffretriever doctor                        check Java, FAISS, devices and the connection to Pyserini
  diffretriever check qwen3-0.6b-diffusion-zeroshot-q4-p4   the first run of a model: files, prompt, vectors, speed
  diffretriever encode --corpus corpus.jsonl --output store
  diffretriever index --store store --output index
  diffretriever encode-queries --topics topics.tsv --output queries
  diffretriever search --index INDEX --query "how tall is the tower"
  diffretriever search --index INDEX --topics topics.tsv --output run.txt
  diffretriever explain --index INDEX --query "how tall is the tower" --docid p2 --html why.html
  diffretriever export qdrant --store store --collection passages --path my-folder
  diffretriever evaluate --qrels qrels.txt --run run.txt
  diffretriever mine-negatives --documents my-texts --output mined
  diffretriever train --config my.yaml
  diffretriever reproduce list

Pyserini's own commands work too, with --encoder diffretriever:
  python -m pyserini.encode input --corpus C --fields title text output --embeddings D --to-faiss \\
      encoder --encoder diffretriever --fields title text --dimension 384 --device cpu
"""


_TEXTS = ("--query", "--text")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 for a failed check, 2 for an error, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a passage may have characters that the terminal cannot show
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = _parser()
    if words and not words[0].startswith("-") and words[0] not in commands:
        parser.error(_unknown("command", words[0], list(commands)))
    arguments, left = parser.parse_known_args(words)
    if left:
        command = next(commands[word] for word in words if word in commands)
        if (option := _text_option(words, left[0])) is not None:
            command.error(f"unknown argument {left[0]!r}: {option} takes one text; put several words in quotes.")
        command.error(_unknown("option" if left[0].startswith("-") else "argument", left[0], _options(command)))
    arguments.argv = words  # for commands that start others like themselves
    try:
        with shown(quiet=getattr(arguments, "quiet", False)):
            return int(arguments.function(arguments) or 0)
    except DiffRetrieverError as error:
        if arguments.traceback or trace_wanted():
            traceback.print_exc()
        print(f"diffretriever: error: {sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        hint = "; the same command continues" if getattr(arguments, "continues", False) else ""
        print(f"diffretriever: interrupted{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (head, less) has ended; without this Python prints a second error at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _unknown(kind: str, word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.partition("=")[0], known, n=1)
    if near:
        return f"unknown {kind} {word!r}: did you mean {near[0]}?"
    return f"unknown {kind} {word!r}" + (f"; the commands are {', '.join(known)}" if kind == "command" else "")


def _text_option(words: Sequence[str], left: str) -> str | None:
    """The option of one text before the word ``left``; None where another option is before it."""
    if left.startswith("-"):
        return None
    before = [word for word in words[: words.index(left)] if word.startswith("--")]
    return before[-1] if before and before[-1] in _TEXTS else None


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Options of ``parser`` and of its sub-commands."""
    options = list(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            options += [name for inner in action.choices.values() for name in _options(inner)]
    return options


class _Store(argparse._StoreAction):
    """Store values; an option of several values that is given twice (``--docid p1 --docid p2``) has those of both."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        before = getattr(namespace, self.dest)
        if self.nargs == "+" and before is not self.default:
            values = [*before, *values]
        super().__call__(parser, namespace, values, option_string)


class _Parser(argparse.ArgumentParser):
    """A parser that takes no abbreviated options, which could be ambiguous in a later version."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **({"allow_abbrev": False} | options))
        self.register("action", None, _Store)
        self._words: list[str] = []

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Report the error; where a required option is missing, name a misspelt one first."""
        options = _options(self)
        unknown = [word for word in self._words if word.startswith("--") and word.partition("=")[0] not in options]
        if unknown and message.startswith(("the following arguments are required", "one of the arguments")):
            message = f"{_unknown('option', unknown[0], options)} ({message})"
        super().error(message)


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The parser, and those of its commands."""
    parser = _Parser(
        prog="diffretriever",
        description=_DESCRIPTION,
        epilog=f"{_EXAMPLES}\nDocumentation: {installed_folder('docs') / 'quickstart.md'} and the pages beside it\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-V", "--version", action=_Version, nargs=0, help="show the versions of this package and Pyserini"
    )
    commands = parser.add_subparsers(title="commands", metavar="command", required=True)
    for_queries = (encode_queries, search, explain, evaluate)
    for module in (
        *(demo, doctor, check, encode, store, index, multi),
        *for_queries,
        *(export, qdrant, mine, models, train, reproduce),
    ):
        command = module.add_to(commands)
        command.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    return parser, commands.choices


class _Version(argparse.Action):
    """Print the installed versions, which are looked up only for this option."""

    def __call__(self, parser, namespace, values, option_string=None):  # type: ignore[no-untyped-def]
        from importlib.metadata import PackageNotFoundError, version

        for name in ("diffretriever-pyserini", "pyserini"):
            try:
                print(name, version(name))
            except PackageNotFoundError:
                print(name, "not installed")
        parser.exit()
