"""The errors that a person is meant to read: each says what is wrong, where, and what to do."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_ENDLESS = re.compile(r"\S{1000,}")


class DiffRetrieverError(ValueError):
    """Base of every error raised on purpose by this package; its message is one readable sentence or two."""


def sentence(error: DiffRetrieverError) -> str:
    """What ``error`` says, for a terminal: words of 1,000 characters and more, from damaged files, are cut."""
    return _ENDLESS.sub(lambda found: f"{found[0][:200]}...", str(error))


def trace_wanted() -> bool:
    """Whether DIFFRETRIEVER_TRACEBACK asks for the trace of an error beside its sentence."""
    return os.environ.get("DIFFRETRIEVER_TRACEBACK", "0") not in ("", "0")


def reason(error: Exception) -> str:
    """What a library's ``error`` says, for the inside of a sentence: its kind and the beginning of its message."""
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said:.300}" if said else type(error).__name__


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Raise a panic of a Rust library (tokenizers, safetensors), which is no Exception to Python, as a RuntimeError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise RuntimeError(str(error)) from error
        raise


class ConfigError(DiffRetrieverError):
    """A configuration, checkpoint folder or model name that cannot be used as given."""


class ModelNotFoundError(DiffRetrieverError, FileNotFoundError):
    """A model that is neither on disk nor in the local hub cache, and cannot be fetched from here."""


class InputError(DiffRetrieverError):
    """A corpus, topic or text that cannot be encoded; the message names the file, line or id."""


class NumericalError(DiffRetrieverError):
    """A model that produced NaN or infinite values; ``index`` is the text's position among those given."""

    index: int | None = None
