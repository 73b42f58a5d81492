"""The commands of the demo are the documented ones, and accept unusual paths."""

from diffretriever_pyserini.demo.commands import RUNS, pyserini_steps
from diffretriever_pyserini.runtime.commands import shown


def test_the_documented_commands() -> None:
    lines = [shown(step.arguments) for step in pyserini_steps("diffretriever", 384, alpha=3 / 7)]
    assert lines == [
        "python -m pyserini.encode input --corpus corpus --fields title text output --embeddings index.dense --to-faiss"
        " encoder --encoder diffretriever --fields title text --dimension 384 --device cpu",
        "python -m pyserini.encode input --corpus corpus --fields title text output --embeddings vectors.lexical"
        " encoder --encoder diffretriever-lexical --fields title text --device cpu",
        "python -m pyserini.index.lucene --collection JsonVectorCollection --input vectors.lexical"
        " --index index.lexical --generator DefaultLuceneDocumentGenerator --threads 2 --impact --pretokenized",
        "python -m pyserini.index.lucene --collection JsonCollection --input corpus --index index.bm25"
        " --generator DefaultLuceneDocumentGenerator --threads 2 --storeRaw",
        "python -m pyserini.search.lucene --index index.bm25 --bm25 --topics topics.json --output run.bm25.txt",
        "python -m pyserini.search.faiss --index index.dense --encoder diffretriever --device cpu"
        " --topics topics.json --output run.dense.txt --batch-size 16 --threads 2",
        "python -m pyserini.search.lucene --index index.lexical --impact --encoder diffretriever"
        " --topics topics.json --output run.lexical.txt --batch-size 16 --threads 2",
        "python -m pyserini.search.hybrid dense --index index.dense --encoder diffretriever --device cpu"
        " sparse --index index.lexical --impact --encoder diffretriever fusion --alpha 0.4286 --normalization"
        " run --topics topics.json --output run.hybrid.txt --batch-size 16 --threads 2",
    ]


def test_each_run_has_its_command() -> None:
    assert set(RUNS.values()) == {step.produces for step in pyserini_steps("diffretriever", 384)[-4:]}


def test_no_argument_is_taken_for_a_sub_command() -> None:
    for step in pyserini_steps("diffretriever", 384):
        words = [word for word in step.arguments if word in {"dense", "sparse", "fusion", "run", "input", "output"}]
        assert len(words) == len(set(words))


def test_a_path_with_blanks_stays_one_argument() -> None:
    steps = pyserini_steps("/my models/base", 64)
    assert "diffretriever:/my models/base" in steps[0].arguments
    assert "diffretriever-lexical:/my models/base" in steps[1].arguments
    assert "'diffretriever:/my models/base'" in shown(steps[0].arguments)
