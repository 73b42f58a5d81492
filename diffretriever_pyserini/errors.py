"""Errors for the user: each message says what is wrong, where, and what to do."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

BUILD_AGAIN = "build the index again (with --rebuild if `diffretriever index` built it)"
_QUOTED = 300  # characters of a library's message
_LONG_WORD = re.compile(r"\S{1000,}")


class DiffRetrieverError(ValueError):
    """Base of every error raised on purpose by this package; its message is one or two readable sentences.

    Examples
    --------
    >>> from diffretriever_pyserini import Corpus, DiffRetrieverError
    >>> try:
    ...     Corpus("no-such-file.jsonl")
    ... except DiffRetrieverError as error:
    ...     print(type(error).__name__)
    InputError
    """


def sentence(error: DiffRetrieverError) -> str:
    """The message of ``error`` for a terminal; words of 1,000 characters and more, from damaged files, are cut."""
    return _LONG_WORD.sub(lambda match: f"{match[0][:200]}...", str(error))


def trace_wanted() -> bool:
    """Whether DIFFRETRIEVER_TRACEBACK asks for an error's traceback as well as its message."""
    return os.environ.get("DIFFRETRIEVER_TRACEBACK", "0") not in ("", "0")


def reason(error: Exception) -> str:
    """Class and start of the message of a library's ``error``, to quote within a sentence."""
    message = " ".join(str(error).split()).rstrip(".")
    if len(message) > _QUOTED:
        start = message[:_QUOTED]
        message = f"{start.rpartition(' ')[0] or start}…"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class PanicError(RuntimeError):
    """A failure of a Rust library, which is no Exception to Python."""


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise a panic of the tokenizers library as a :class:`PanicError`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise PanicError(str(error)) from error
        raise


class BusyError(DiffRetrieverError):
    """An output that another process is writing."""


class ConfigError(DiffRetrieverError):
    """A configuration, checkpoint folder or model name that cannot be used.

    Examples
    --------
    >>> from diffretriever_pyserini import resolve_config
    >>> resolve_config("diffretriever", k_query=0)
    Traceback (most recent call last):
        ...
    diffretriever_pyserini.errors.ConfigError: ...
    """


class ModelNotFoundError(DiffRetrieverError, FileNotFoundError):
    """A model that is neither on disk nor in the local hub cache, and cannot be downloaded.

    Examples
    --------
    >>> from diffretriever_pyserini import resolve_config
    >>> resolve_config("./no-such-folder")
    Traceback (most recent call last):
        ...
    diffretriever_pyserini.errors.ModelNotFoundError: ...
    """


class InputError(DiffRetrieverError):
    """A corpus, topic or text that cannot be encoded; the message names the file, line or id.

    Examples
    --------
    >>> from diffretriever_pyserini import evaluate
    >>> evaluate({"q1": {"p1": 1.0}}, {"q1": {"p1": 0}})
    Traceback (most recent call last):
        ...
    diffretriever_pyserini.errors.InputError: ...
    """


class NumericalError(DiffRetrieverError):
    """A model that produced NaN or infinite values; ``index`` is the number of the text, from 0.

    Examples
    --------
    >>> from diffretriever_pyserini import NumericalError
    >>> error = NumericalError("text 3: the model returned NaN or infinity")
    >>> error.index is None
    True
    """

    index: int | None = None
