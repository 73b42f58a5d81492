"""The last look at a store's ids before they are indexed; a finished store of `diffretriever encode` has none twice."""

from __future__ import annotations

from ..errors import InputError
from ..store.docids import repeats
from ..store.store import Store


def check_unique(store: Store) -> None:
    """Raise InputError, naming the id and both parts, where an id of ``store`` occurs twice."""
    for docid, first, again in repeats(store.parts):
        where = f"in {again.path} and before in {first.path}" if again != first else f"twice in {again.path}"
        raise InputError(f"passage id {docid!r} is {where}: ids must be unique; mend the corpus and encode it again.")
