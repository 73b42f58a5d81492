"""The record of the encoder in every folder that is written: everything that decides a representation, by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..errors import BUILD_AGAIN, InputError, reason
from .readouts import no_terms

VERSION = 3  # increases when the same weights and settings give other numbers or another record
Needed = Literal["everything", "terms", "vectors"]
"""What must agree: everything, all but the query side (for passage terms), or what decides passage vectors."""
SEARCH_REMEDY = "search with the encoder that built the index, or build the index again with this one"

# fmt: off
# Passage vectors do not depend on these. Pyserini may shorten max_length for one side.
_NOT_OF_VECTORS = frozenset((
    "readout.impact_rounding", "readout.lexical_terms", "readout.top_terms", "readout.impact_scale",
    "readout.max_lexical_chars", "readout.query_prefix", "passage.pad_id", "passage.max_length",
))
_NAMES = {
    "query.k": "k_query", "passage.k": "k_passage", "query.max_length": "max_length",
    "passage.max_length": "max_length", "query.mask_id": "mask_token_id", "passage.mask_id": "mask_token_id",
}
# fmt: on
_MOST_DIFFERENCES = 6
_PROMPT = ("prefix", "suffix", "tail")
_DEFAULT = object()


@dataclass(frozen=True)
class Provenance:
    """Everything about an encoder that decides representations.

    Attributes
    ----------
    encoder : its name, which decides nothing.
    weights, adapter_weights : digests over name, type, shape and content of every tensor that is loaded; None without
        an adapter.
    config : the relevant values of transformers' configuration of the base that are not defaults.
    adapter_config : how the adapter is merged.
    tokenizer : digests of the parts of the tokenizer.
    query, passage : the token layout of each side.
    readout : settings of the read-out.
    """

    encoder: str
    weights: str
    adapter_weights: str | None
    config: dict[str, Any]
    adapter_config: dict[str, Any]
    tokenizer: dict[str, str]
    query: dict[str, Any]
    passage: dict[str, Any]
    readout: dict[str, Any]
    version: int = VERSION

    @property
    def fingerprint(self) -> str:
        """16 hex digits over everything: equal for encoders that make the same representations."""
        return self.digest("everything")

    @property
    def passage_fingerprint(self) -> str:
        """16 hex digits over what decides passage vectors; a query encoder with the same digits may search them."""
        return self.digest("vectors")

    @property
    def k_passage(self) -> int:
        """Vectors per passage."""
        return int(self.passage["k"])

    @property
    def terms_refused(self) -> str | None:
        """Why the encoder has no terms, if its read-out gives a vector alone; else None."""
        return no_terms(self.encoder, str(self.readout.get("readout", "mask")))

    def digest(self, needed: Needed) -> str:
        """16 hex digits over what is ``needed``."""
        return digest_of(self.values(needed))[:16]

    def values(self, needed: Needed = "everything") -> dict[str, Any]:
        """The ``needed`` values under flat names: ``weights``, ``config.rms_norm_eps``, ``passage.k`` …"""
        named = dict(flat({name: value for name, value in asdict(self).items() if name != "encoder"}))
        return {name: value for name, value in named.items() if _decides(name, needed)}

    def record(self) -> dict[str, Any]:
        """All values for JSON, with both fingerprints."""
        return asdict(self) | {"fingerprint": self.fingerprint, "passage_fingerprint": self.passage_fingerprint}


def read_provenance(values: Any, path: Path | str, remedy: str = BUILD_AGAIN) -> Provenance:
    """The provenance that :meth:`Provenance.record` wrote to ``path``; ``remedy`` ends the error message.

    Raises
    ------
    InputError
        When the record is damaged or of another version.
    """
    if not isinstance(values, dict) or values.get("version") != VERSION:
        raise InputError(f"{path}: another version of this package wrote the record of the encoder; {remedy}.")
    try:
        provenance = Provenance(**{field.name: values[field.name] for field in fields(Provenance)})
        fingerprints = values["fingerprint"], values["passage_fingerprint"]
        own = provenance.fingerprint, provenance.passage_fingerprint
        intact = own == fingerprints and provenance.k_passage > 0
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({reason(error)}); {remedy}.") from error
    if not intact:
        raise InputError(f"{path}: damaged (the record of the encoder does not match its fingerprint); {remedy}.")
    return provenance


def require_same_encoder(
    recorded: Provenance,
    current: Provenance,
    what: str,
    remedy: str = SEARCH_REMEDY,
    needed: Needed = "everything",
) -> None:
    """Raise InputError unless the ``current`` encoder equals the ``recorded`` one, as far as ``needed``.

    Parameters
    ----------
    what : start of the message, what the recorded encoder made: "FOLDER holds vectors".
    remedy : what to do, for the end of the message.

    Raises
    ------
    InputError
        When they differ. The message lists the differences and has both names and fingerprints.
    """
    if recorded.digest(needed) == current.digest(needed):
        return
    differing = differences(recorded, current, needed)
    first = "; ".join(differing[:_MOST_DIFFERENCES])
    more = f"; and {len(differing) - _MOST_DIFFERENCES} more" if len(differing) > _MOST_DIFFERENCES else ""
    raise InputError(
        f"{what} of another encoder: {first}{more}: {remedy}. (Made by {recorded.encoder!r}, fingerprint "
        f"{recorded.digest(needed)}; this encoder is {current.encoder!r}, fingerprint {current.digest(needed)}.)"
    )


def differences(recorded: Provenance, current: Provenance, needed: Needed = "everything") -> list[str]:
    """How ``current`` differs from ``recorded``, in words; settings that a user chooses come first."""
    old, new = recorded.values(needed), current.values(needed)
    names = [name for name in {**new, **old} if old.get(name, _DEFAULT) != new.get(name, _DEFAULT)]
    implied = [f"{side}.{part}" for side in ("query", "passage") if f"{side}.k" in names for part in _PROMPT]
    if (recorded.adapter_weights is None) != (current.adapter_weights is None):
        implied += [name for name in names if name.startswith("adapter_config.")]
    names = [name for name in names if name not in implied]
    order = ("adapter_config", "readout", "query", "passage", "config", "tokenizer", "adapter_weights", "weights")
    names.sort(key=lambda name: (name not in _NAMES, order.index(name.partition(".")[0]), name))
    return list(dict.fromkeys(_in_words(name, old, new) for name in names))


def _in_words(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    component, _, key = name.partition(".")
    if component == "weights":
        return "other weights"
    if component == "adapter_weights":
        if new[name] is None:
            return "no adapter"
        return "an adapter" if old[name] is None else "other adapter weights"
    if component == "tokenizer":
        return f"another tokenizer ({key.replace('_', ' ')})"
    if key in _PROMPT:
        return f"another {component} prompt"
    key = key.removeprefix("rope_parameters.")  # transformers has rope_theta of config.json there
    return f"{_NAMES.get(name, key)} is {_value(new, name)}, was {_value(old, name)}"


def _value(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, _DEFAULT)
    if value is _DEFAULT:
        return "the default"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _decides(name: str, needed: Needed) -> bool:
    if needed == "terms":
        return not name.startswith("query.") and name not in ("passage.max_length", "readout.query_prefix")
    return needed == "everything" or not (name.startswith(("query.", "readout.lexical_tf.")) or name in _NOT_OF_VECTORS)


def flat(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of nested mappings, names joined by dots."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def digest_of(values: Any) -> str:
    """SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
