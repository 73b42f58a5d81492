"""Ids must be unique over a whole store; found out with eight bytes a passage."""

from __future__ import annotations

import hashlib

import numpy as np

from ..errors import InputError
from ..store.reader import Store


def check_unique(store: Store) -> None:
    """Raise InputError, naming the id and both parts, where an id of ``store`` occurs twice."""
    hashes = np.fromiter((_hash(docid) for docid in store.docids()), np.uint64, len(store))
    hashes.sort()
    suspects = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not suspects:
        return
    seen: dict[str, str] = {}
    for part in store.parts:
        for docid in part.docids:
            if _hash(docid) not in suspects:  # else two ids may still share a hash by chance
                continue
            if docid in seen:
                where = (
                    f"in {part.path} and before in {seen[docid]}"
                    if seen[docid] != str(part.path)
                    else (f"twice in {part.path}")
                )
                raise InputError(
                    f"passage id {docid!r} is {where}: ids must be unique; mend the corpus and encode it again."
                )
            seen[docid] = str(part.path)


def _hash(docid: str) -> int:
    return int.from_bytes(hashlib.blake2b(docid.encode(), digest_size=8).digest(), "little")
