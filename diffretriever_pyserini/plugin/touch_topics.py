"""Touch point of ``pyserini.query_iterator``: clear errors for topics that Pyserini cannot read or loses queries of."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ..corpora.topics import read_topics as read_strictly
from ..corpora.topics import topic_ids
from ..errors import InputError
from ..files.jsonl import open_bytes
from .lists import pyserini_list

logger = logging.getLogger(__name__)


def read_topics(original: Callable[..., Any]) -> Callable[..., Any]:
    """Read topics as Pyserini does; raise a clear error where it fails or loses queries."""

    def from_topics(cls: Any, topics_path: str) -> Any:
        path = Path(topics_path)
        try:
            iterator = original(cls, topics_path)
        except (ValueError, NotImplementedError, OSError, AttributeError) as error:
            if path.is_file():
                raise InputError(explain_topics(path, error)) from error
            if topics_path in (known := pyserini_list("topics", topics_path).names):
                raise
            near = difflib.get_close_matches(topics_path, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; check the path."
            raise InputError(f"{topics_path}: no such topic file, and no topics that Pyserini knows{hint}") from error
        if path.is_file():
            compare_ids(path, iterator.topics)
        return iterator

    return from_topics


def compare_ids(path: Path, topics: Collection[Any]) -> None:
    """Compare the query ids in ``path`` with ``topics``, as Pyserini has read them.

    Changed ids (007 into 7) give a warning, and lost queries raise InputError. Layouts that we do not read are skipped.
    """
    try:
        ids = topic_ids(path)
    except InputError:
        return
    if len(ids) > len(topics):
        raise InputError(
            f"{path}: {len(ids)} queries, of which Pyserini keeps {len(topics)}: ids must be unique, and Pyserini "
            "reads 007, 07 and 7 as the same number. Use other ids, or `diffretriever search`."
        )
    read_ids = {str(qid) for qid in topics}
    changed = [qid for qid in ids if qid not in read_ids]
    if changed:
        logger.warning(
            "%s: Pyserini reads numeric query ids as numbers: %d of %d change, first %r. The run has the changed ids, "
            "which the judgements may not have; .json topics and `diffretriever search` keep the ids.",
            *(path, len(changed), len(ids), changed[0]),
        )


def explain_topics(path: Path, error: Exception) -> str:
    """Why Pyserini could not read the topic file ``path``, and what to do."""
    if not set(path.suffixes) & {".trec", ".xml"}:  # layouts that only Pyserini reads
        try:
            read_strictly(path)
        except InputError as problem:
            return str(problem)
    with open_bytes(path) as file:
        has_mark = file.read(3) == b"\xef\xbb\xbf"
    if has_mark:
        return (
            f"{path}: begins with a byte order mark, which Pyserini cannot read: save it as UTF-8 without one, or use "
            "`diffretriever search`, which reads it."
        )
    hints = [
        f"its path contains {word!r}, which makes Pyserini expect another layout; move it"
        for word in ("beir", "cacm")
        if word in str(path)
    ]
    hints.append('Pyserini reads .tsv (query id, tab, query) and .jsonl with {"qid", "title"}')
    return f"{path}: Pyserini cannot read these topics ({error}): {'; '.join(hints)}."
