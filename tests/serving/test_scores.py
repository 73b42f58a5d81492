"""What a collection returns is what numpy computes over the store, in every engine and mode."""

from __future__ import annotations

from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pytest

from diffretriever_pyserini import InputError, SearchOptions, Store
from diffretriever_pyserini.indexes.options import MultiOptions
from diffretriever_pyserini.scoring.fusion import RankedList, fuse_lists, lexical_floor
from diffretriever_pyserini.scoring.ranking import best
from diffretriever_pyserini.serving.engine import Sparse, point_id

from .conftest import COUNT, DOCIDS, TOPICS, Collections, exact_scores, random_query


def test_every_mode(collections: Collections, store: Store) -> None:
    figures = collections.export(store)
    assert figures["points"] == figures["passages"] == COUNT
    with collections.open() as index:
        for signal in ("dense", "multi", "lexical"):
            run = index.search(TOPICS, signal, hits=COUNT)
            for qid, text in TOPICS.items():
                exact = exact_scores(store, signal, text)
                assert dict(run[qid]) == pytest.approx(exact, abs=1e-4), (signal, qid)
                assert [docid for docid, _ in run[qid]][:20] == [docid for docid, _ in best(exact, 20)]
        _check_fusions(index, store)
        assert index.search(TOPICS, "dense", hits=5)["q1"] == index.search(TOPICS, "dense", hits=50)["q1"][:5]
    unclamped = np.einsum("qh,nkh->nqk", random_query("query 1").vectors, store.parts[0].vectors()).max(axis=2)
    assert (unclamped < 0).any()  # so the zero vector is needed


def _check_fusions(index, store: Store) -> None:
    """Hybrid, by min-max here and by reciprocal ranks in the engine, with few hits of each list."""
    for fusion in ("minmax", "rrf"):
        options = SearchOptions(hits=15, depth=30, fusion=fusion)
        for qid, text in TOPICS.items():
            lists = []
            for signal in ("multi", "lexical"):
                hits = best(exact_scores(store, signal, text), 30)
                floor = lexical_floor(len(hits), 30, COUNT) if signal == "lexical" else None
                weight = 0.5 if (signal, fusion) == ("lexical", "minmax") else 1.0
                lists.append(RankedList(signal, hits, weight, floor))
            expected = fuse_lists(lists, fusion, options.rrf_k).hits[:15]
            (batch,) = index.batches({qid: text}, "hybrid", options)
            assert dict(batch[qid]) == pytest.approx(dict(expected), abs=1e-4), (fusion, qid)


def test_one_request_for_reciprocal_ranks(collections: Collections, store: Store) -> None:
    if collections.server is None:
        pytest.skip("counts the requests of a server")
    collections.export(store)
    with collections.open() as index:
        for options, requests in (({}, 1), ({"alpha": 0.5}, 2), ({"remove_query": True}, 2)):
            del collections.server.seen[:]
            index.search({"q": "query 1"}, "hybrid", hits=10, depth=40, fusion="rrf", **options)
            assert len(collections.server.seen) == requests, options


def test_equal_weights_of_reciprocal_ranks_count(collections: Collections, store: Store) -> None:
    """The engine adds up ranks without weights, so the scores would not be those of an index."""
    collections.export(store)
    with collections.open() as index:
        hits = [
            index.search(TOPICS, "hybrid", hits=10, fusion="rrf", weights={"multi": weight, "lexical": weight})["q1"]
            for weight in (1, 2)
        ]
        assert dict(hits[1]) == pytest.approx({docid: 2 * score for docid, score in hits[0]}, abs=1e-6)
        with pytest.raises(InputError, match="all weights are 0"):
            index.search(TOPICS, "hybrid", fusion="rrf", weights={"multi": 0, "lexical": 0})


def test_maxsim_of_the_candidates_is_exact(collections: Collections, store: Store) -> None:
    collections.export(store)
    with collections.open(multi_options=MultiOptions(candidates=10)) as index:
        run = index.search(TOPICS, "multi", hits=10)
        dense, lexical = (index.search(TOPICS, signal, hits=10) for signal in ("dense", "lexical"))
    for qid, text in TOPICS.items():
        exact = exact_scores(store, "multi", text)
        candidates = dict(dense[qid]) | dict(lexical[qid])
        expected = best({docid: exact[docid] for docid in candidates}, 10)
        assert dict(run[qid]) == pytest.approx(dict(expected), abs=1e-4)


def test_what_is_stored(collections: Collections, store: Store) -> None:
    collections.export(store)
    with collections.open() as index:
        points = {point.docid: point for point in index._queries.engine.points(DOCIDS)}
        assert np.allclose(index.searcher("multi").vectors("東京-7"), store.parts[0].vectors(1, 2)[0], atol=1e-6)
        assert index.searcher("dense").vectors("no such") is None
    assert sorted(points) == sorted(DOCIDS)
    weights = store.parts[0].weights
    for row, docid in enumerate(DOCIDS[: len(store.parts[0])]):
        vectors = points[docid].vectors
        assert np.allclose(vectors["dense"], store.parts[0].pooled(row, row + 1)[0], atol=1e-6)
        assert np.allclose(vectors["multi"][:-1], store.parts[0].vectors(row, row + 1)[0], atol=1e-6)
        assert not np.any(vectors["multi"][-1])
        terms = weights[row].indices.tolist()
        expected = dict(zip(terms, weights[row].data.tolist(), strict=True))
        sparse = vectors.get("lexical", Sparse([], []))
        assert dict(zip(sparse.indices, sparse.values, strict=True)) == expected
    assert max(weights.data) > 2048  # which float16 would round, and uint8 cut


def test_point_ids_are_name_based() -> None:
    ids = {point_id(docid) for docid in DOCIDS}
    assert len(ids) == COUNT  # "é" and "e" with an accent, "7" and "007" differ
    assert point_id("東京-7") == uuid5(NAMESPACE_OID, "東京-7")
    assert all(one.version == 5 for one in ids)


def test_a_store_with_an_id_twice_is_refused(collections: Collections, tmp_path) -> None:
    from .conftest import write_store

    twice = write_store(tmp_path / "twice", docids=["a", "b", "c", "d"] * 10, rows_per_part=4)
    with pytest.raises(InputError, match=r"part-00000001.*'a' is also in .*part-00000000"):
        collections.export(twice)
