"""The check that a store's ids are unique; `diffretriever encode` has made sure of it for its own stores."""

from __future__ import annotations

from ..errors import InputError
from ..store.docids import repeats
from ..store.store import Store


def check_unique(store: Store) -> None:
    """Raise InputError, with the id and both parts, if an id of ``store`` occurs twice."""
    for docid, first, again in repeats(store.parts):
        where = f"in {again.path} and before in {first.path}" if again != first else f"twice in {again.path}"
        raise InputError(
            f"passage id {docid!r} is {where}: ids must be unique; correct the corpus and encode it again."
        )
