"""Which ids are accepted."""

from __future__ import annotations

import pytest

from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.files.jsonl import checked_id


@pytest.mark.parametrize("sign", ["x", "é", "😀"])
def test_ids_are_as_long_as_lucene_takes_them(sign: str) -> None:
    longest = sign * (32_766 // len(sign.encode()))
    assert checked_id(longest, "c.jsonl, line 3", "passage") == longest
    with pytest.raises(
        InputError, match=r"c\.jsonl, line 3: the passage id .* has 32,7\d\d bytes; Lucene takes 32,766"
    ):
        checked_id(longest + sign, "c.jsonl, line 3", "passage")


@pytest.mark.parametrize("mark", ["\ufeff", "\ufffe"])
def test_an_id_that_lucene_would_change_is_refused(mark: str) -> None:
    """Else a passage has two ids in a hybrid search: that of the vectors, and that of the terms."""
    assert checked_id(f"a{mark}", "c.jsonl, line 3", "passage") == f"a{mark}"
    with pytest.raises(InputError, match=r"c\.jsonl, line 3: the passage id .* begins with a byte order mark"):
        checked_id(f"{mark}a", "c.jsonl, line 3", "passage")
