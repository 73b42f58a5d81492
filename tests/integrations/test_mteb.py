"""mteb runs our models on a task that these tests make; nothing is downloaded."""

from __future__ import annotations

import doctest
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from diffretriever_pyserini import DiffRetriever, InputError, SearchOptions, evaluate, scoring
from diffretriever_pyserini.integrations import MtebModel

ROOT = Path(__file__).resolve().parents[2]
PASSAGES = [
    {"id": "007", "title": "Photosynthesis", "text": "Plants and algae turn sunlight and water into sugar."},
    {"id": "7", "title": "", "text": "The tower in Tokyo is 333 metres high."},
    {"id": "p3", "title": "Apollo 11", "text": "In July 1969 two astronauts walked on the Moon."},
    {"id": "p4", "title": "Browsers", "text": "JavaScript runs in every browser."},
    {"id": "p5", "title": "The", "text": "of and"},
]
QUERIES = [
    {"id": "1", "text": "how do plants make energy from sunlight"},
    {"id": "01", "text": "how tall is the tower in tokyo"},
    {"id": "2", "text": "who walked on the moon"},
    {"id": "3", "text": "a flower in the sun"},  # nothing lexical matches the passage that it is judged with
]
QRELS = {"1": {"007": 1}, "01": {"7": 1}, "2": {"p3": 1}, "3": {"007": 1}}
TASK = TaskMetadata(
    name="Small",
    description="a few passages",
    dataset={"path": "nowhere/small", "revision": "1"},
    type="Retrieval",
    eval_langs=["eng-Latn"],
    main_score="ndcg_at_10",
)


class Small(AbsTaskRetrieval):
    metadata = TASK

    def load_data(self, **_: Any) -> None:
        corpus, queries = Dataset.from_list(PASSAGES), Dataset.from_list(QUERIES)
        parts = {"corpus": corpus, "queries": queries, "relevant_docs": QRELS, "top_ranked": None}
        self.dataset = {"default": {"test": parts}}  # type: ignore[typeddict-item]
        self.data_loaded = True


@pytest.fixture(scope="module")
def retriever() -> DiffRetriever:
    return DiffRetriever.from_pretrained("diffretriever")


@pytest.fixture
def make(retriever: DiffRetriever) -> Iterator[Callable[..., MtebModel]]:
    made: list[MtebModel] = []

    def make(mode: str = "dense", **options: Any) -> MtebModel:
        made.append(MtebModel(retriever, mode, **options))
        return made[-1]

    yield make
    for model in made:
        model.close()


CALL: dict[str, Any] = {"task_metadata": TASK, "hf_split": "test", "hf_subset": "default", "num_proc": 1}


def index(model: MtebModel, passages: list[dict[str, Any]], **encode_kwargs: Any) -> None:
    model.index(Dataset.from_list(passages), encode_kwargs={"show_progress_bar": False, **encode_kwargs}, **CALL)


def search(model: MtebModel, queries: list[dict[str, Any]], **options: Any) -> dict[str, dict[str, float]]:
    return model.search(Dataset.from_list(queries), **({"top_k": 10, "encode_kwargs": {}, **CALL} | options))


@pytest.fixture(scope="module")
def expected(retriever: DiffRetriever) -> dict[str, np.ndarray]:
    """The scores of each mode by the equations of docs/method.md §5; a store holds vectors in float16."""

    def stored(vectors: np.ndarray) -> np.ndarray:
        return vectors.astype(np.float16).astype(np.float32)

    passages = retriever.encode_document([f"{one['title']} {one['text']}".strip() for one in PASSAGES])
    queries = retriever.encode_query([one["text"] for one in QUERIES])
    dense = scoring.pooled_scores(queries.pooled, stored(passages.pooled))
    multi = scoring.maxsim(queries.vectors, stored(passages.vectors))
    lexical = scoring.lexical_scores(queries.weights, passages.weights)
    assert lexical[3, 0] == 0 < lexical[0, 0]
    listed = np.where(lexical > 0, lexical, np.nan)
    weight = retriever.config.hybrid_weight
    return {
        "dense": dense,
        "multi": multi,
        "lexical": listed,
        "hybrid": scoring.fuse(dense, lexical, weight),
        "multi,lexical": scoring.fuse(multi, lexical, weight),
    }


@pytest.mark.java
@pytest.mark.parametrize("mode", ["dense", "multi", "lexical", "hybrid", "multi,lexical"])
def test_mteb_gets_the_scores_of_the_equations(
    mode: str, make: Callable[..., MtebModel], expected: dict[str, np.ndarray], tmp_path: Path
) -> None:
    model = make(mode)
    (results,) = mteb.evaluate(
        model, tasks=[Small()], cache=None, prediction_folder=tmp_path, show_progress_bar=False, num_proc=1
    )
    (predictions,) = tmp_path.glob("*.json")
    run = json.loads(predictions.read_text())["default"]["test"]
    assert set(run) == {one["id"] for one in QUERIES}
    for query, scores in zip(QUERIES, expected[mode], strict=True):
        listed = {one["id"]: score for one, score in zip(PASSAGES, scores.tolist(), strict=True) if score == score}
        assert run[query["id"]] == pytest.approx(listed, abs=1e-5)
    ours = evaluate(run, QRELS, ["nDCG@10"])
    assert results.scores["test"][0]["ndcg_at_10"] == pytest.approx(ours.means["nDCG@10"], abs=1e-5)


@pytest.mark.java
def test_the_documented_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (code,) = re.findall(r"```python\n(import mteb\n.*?)```", (ROOT / "docs" / "searching.md").read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mteb, "get_tasks", lambda names: [Small()])
    monkeypatch.setattr(mteb, "evaluate", partial(mteb.evaluate, cache=None, show_progress_bar=False, num_proc=1))
    exec(code, {})
    shown = capsys.readouterr().out
    assert re.findall("^[a-z]+$", shown, re.M) == ["dense", "multi", "lexical", "hybrid"]
    assert len(re.findall(r"Small .*\d\.\d", shown)) == 4
    outcome = doctest.DocTestRunner().run(doctest.DocTestFinder().find(MtebModel, "MtebModel")[0])
    assert outcome.attempted and not outcome.failed, capsys.readouterr().out


def test_mteb_takes_it_as_a_search_model(make: Callable[..., MtebModel]) -> None:
    model = make()
    assert isinstance(model, mteb.SearchProtocol) and not isinstance(model, mteb.EncoderProtocol)


def test_the_metadata_that_mteb_gets(retriever: DiffRetriever, make: Callable[..., MtebModel]) -> None:
    meta = make("dense", metadata={"languages": ["eng-Latn"]}).mteb_model_meta
    assert (meta.name, meta.revision) == ("diffretriever/diffretriever-mini", retriever.fingerprint)
    assert (meta.license, meta.adapted_from) == ("apache-2.0", "sentence-transformers/all-MiniLM-L6-v2")
    assert (meta.max_tokens, meta.embed_dim, meta.languages) == (256, 384, ["eng-Latn"])
    assert meta.n_parameters and 22e6 < meta.n_parameters < 23e6
    assert (meta.similarity_fn_name.value, meta.model_type) == ("dot", ["dense"])  # type: ignore[union-attr]
    for mode, similarity, kind in (
        ("multi", "MaxSim", "late-interaction"),
        ("lexical", "dot", "sparse"),
        ("hybrid", "custom", "hybrid"),
    ):
        meta = make(mode).mteb_model_meta
        assert (meta.similarity_fn_name.value, meta.model_type) == (similarity, [kind])  # type: ignore[union-attr]


def test_results_of_other_modes_and_options_have_other_names(make: Callable[..., MtebModel], tmp_path: Path) -> None:
    models = [
        make("dense"),
        make("multi"),
        make("hybrid"),
        make("hybrid", options=SearchOptions(alpha=0.5)),
        make("hybrid", options=SearchOptions(weights={"dense": 2})),
        make("hybrid", options=SearchOptions(fusion="rrf")),
    ]
    names = [model.mteb_model_meta.model_name_with_experiment for model in models]
    assert len(set(names)) == len(models)
    assert make("dense", options=SearchOptions(threads=1)).mteb_model_meta == models[0].mteb_model_meta
    cache = mteb.ResultCache(tmp_path)
    for model in models[:2]:
        mteb.evaluate(model, tasks=[Small()], cache=cache, show_progress_bar=False, num_proc=1)
        assert cache.load_task_result("Small", model.mteb_model_meta) is not None
    assert cache.load_task_result("Small", models[2].mteb_model_meta) is None


def test_an_instruction_follows_its_query(make: Callable[..., MtebModel]) -> None:
    model = make()
    index(model, PASSAGES)
    texts = [{"id": "a", "text": "tower", "instruction": "in Japan"}, {"id": "b", "text": "tower", "instruction": None}]
    plain = [{"id": "a", "text": "tower in Japan"}, {"id": "b", "text": "tower"}]
    assert search(model, texts) == search(model, plain)
    assert len(search(model, plain, top_k=2)["a"]) == 2


def test_a_folder_keeps_a_corpus_for_other_modes(
    make: Callable[..., MtebModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = make("multi", folder=tmp_path)
    index(first, PASSAGES)
    before = search(first, QUERIES)
    (kept,) = tmp_path.iterdir()

    def no_encoding(*_: object, **__: object) -> None:
        raise AssertionError("the corpus is encoded again")

    again = make("multi,dense", folder=tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(DiffRetriever, "represent", no_encoding)
        index(again, PASSAGES)
    assert search(again, QUERIES).keys() == before.keys()
    index(again, [*PASSAGES[:-1], {"id": "p5", "title": "The", "text": "of or"}])  # of the same size
    assert len(list(tmp_path.iterdir())) == 2 and kept.is_dir()


def test_a_temporary_folder_goes_with_its_corpus(
    make: Callable[..., MtebModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = make("multi")
    index(model, PASSAGES)
    (first,) = tmp_path.iterdir()
    index(model, PASSAGES[:2])
    (second,) = tmp_path.iterdir()
    assert first != second
    assert set(search(model, QUERIES)["1"]) == {"007", "7"}
    model.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"Small \(default, test\): no passages in this corpus"),
        (
            [PASSAGES[0], PASSAGES[1], PASSAGES[0]],
            r"Small \(default, test\), corpus, row 3: passage id '007' occurs twice",
        ),
        ([{"id": "a b", "text": "x"}], "corpus, row 1: the passage id 'a b' holds white space"),
        ([{"id": "a", "image": "x"}], "corpus, row 1: the passage has no field 'text'"),
        ([{"id": "a", "text": 1.5}], "corpus, row 1: field 'text' must be a string"),
    ],
)
def test_a_corpus_that_cannot_be_encoded(make: Callable[..., MtebModel], rows: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        index(make(), rows)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([], {}, r"Small \(default, test\): there are no queries"),
        ([QUERIES[0], QUERIES[0]], {}, "queries, row 2: query id '1' occurs twice"),
        ([{"id": "1", "text": " "}], {}, "queries, row 1: query '1' is empty"),
        ([{"id": "1", "text": ["who", "when"]}], {}, "queries, row 1: field 'text' must be a string, found list"),
        (QUERIES, {"top_ranked": {"1": ["007"]}}, "a reranking task, which gives candidates for each query"),
        (QUERIES, {"encode_kwargs": {"precision": "int8"}}, "encode_kwargs: precision would have no effect"),
    ],
)
def test_queries_that_cannot_be_searched(
    make: Callable[..., MtebModel], rows: Any, options: dict[str, Any], message: str
) -> None:
    model = make()
    with pytest.raises(InputError, match="no corpus is indexed; call index first"):
        search(model, QUERIES)
    index(model, PASSAGES[:1])
    with pytest.raises(InputError, match=message):
        search(model, rows, **options)


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("sparse", {}, "mode 'sparse' is not one of dense, multi, lexical, bm25, hybrid"),
        ("dense", {"options": SearchOptions(weights={"lexical": 2})}, "the weight for lexical has no effect"),
        ("dense", {"metadata": {"licence": "mit"}}, "mteb does not accept the model's metadata .*licence"),
    ],
)
def test_options_that_do_not_fit(
    make: Callable[..., MtebModel], mode: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make(mode, **options)


def test_a_missing_library_is_named(make: Callable[..., MtebModel], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb.models.model_meta", None)
    with pytest.raises(InputError, match=r"pip install 'diffretriever-pyserini\[mteb\]'"):
        make()
