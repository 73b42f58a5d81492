"""The errors that a person is meant to read: each says what is wrong, where, and what to do."""


class DiffRetrieverError(ValueError):
    """Base of every error raised on purpose by this package; its message is one readable sentence or two."""


class ConfigError(DiffRetrieverError):
    """A configuration, checkpoint folder or model name that cannot be used as given."""


class ModelNotFoundError(DiffRetrieverError, FileNotFoundError):
    """A model that is neither on disk nor in the local hub cache, and cannot be fetched from here."""


class InputError(DiffRetrieverError):
    """A corpus, topic or text that cannot be encoded; the message names the file, line or id."""


class NumericalError(DiffRetrieverError):
    """A model that produced NaN or infinite values; ``index`` is the text's position among those given."""

    index: int | None = None
