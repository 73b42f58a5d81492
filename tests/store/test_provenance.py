"""What is said of an index that another encoder made."""

import pytest

from diffretriever_pyserini.store.provenance import Maker, refusal


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (Maker("a", "f1", 16), "I was made with k_passage=16, but the query encoder has k_passage=4"),
        (
            Maker("a", "f1", 16, 32),
            "I was made with k_passage=16 and dimension=32, but the query encoder has k_passage=4 and dimension=64",
        ),
        (Maker("b", "f1", 4, 64), "I was made by 'b', but the query encoder is 'a'"),
        (Maker("a", "f1", 4), "I was made by another version of 'a', or with other settings"),
    ],
)
def test_what_differs_comes_first_and_both_fingerprints_last(made: Maker, why: str) -> None:
    end = f"(It was made by {made.encoder!r}, fingerprint f1; the query encoder is 'a', fingerprint f2.)"
    assert refusal("I was made", made, Maker("a", "f2", 4, 64), "do this.") == f"{why}: do this. {end}"
