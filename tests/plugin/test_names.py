"""Topics and judgements by Pyserini's names, from files in its folder; Java's proxy is a closed port: no network."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import read_qrels, read_topics
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.plugin import names

pytestmark = pytest.mark.java


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which Pyserini keeps topics and judgements."""
    from diffretriever_pyserini.runtime import java

    java.prepare()
    from pyserini.pyclass import autoclass

    system: Any = autoclass("java.lang.System")
    monkeypatch.chdir(tmp_path)
    values = {"pyserini.cache": str(tmp_path / "cache"), "https.proxyHost": "127.0.0.1", "https.proxyPort": "9"}
    before = {name: system.setProperty(name, value) for name, value in values.items()}
    yield tmp_path / "cache" / "topics-and-qrels"
    for name, value in before.items():
        if value is None:
            system.clearProperty(name)
        else:
            system.setProperty(name, value)


def write(kept: Path, name: str, text: str) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    (kept / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())


def test_topics(kept: Path) -> None:
    write(kept, "topics.dl19-passage.txt", '19\tbest fox\n2\ta query with "quotes"\n100\tsunlight\n')
    assert list(read_topics("dl19-passage").items()) == [
        ("2", 'a query with "quotes"'),
        ("19", "best fox"),
        ("100", "sunlight"),
    ]


def test_ids_stay_as_they_are(kept: Path) -> None:
    write(kept, "topics.beir-v1.0.0-scifact.test.tsv.gz", "007\tfinance\n7\tplants\n")
    assert read_topics("beir-v1.0.0-scifact-test") == {"007": "finance", "7": "plants"}


def test_judgements(kept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(kept, "qrels.dl19-passage.txt", "19 Q0 007 3\n19 Q0 8 0\n")
    assert read_qrels("dl19-passage") == {"19": {"007": 3, "8": 0}}
    assert capfd.readouterr().out == ""


def test_a_path_of_the_same_name_wins(kept: Path, tmp_path: Path) -> None:
    (tmp_path / "dl19-passage" / "qrels").mkdir(parents=True)
    (tmp_path / "dl19-passage" / "queries.jsonl").write_text('{"_id": "q1", "text": "of the folder"}\n')
    (tmp_path / "dl19-passage" / "qrels" / "test.tsv").write_text("q1\ta\t1\n")
    assert read_topics("dl19-passage") == {"q1": "of the folder"}
    assert read_qrels("dl19-passage") == {"q1": {"a": 1}}


@pytest.mark.parametrize(
    ("read", "file", "what"),
    [(read_topics, "topics.dl19-passage.txt", "topics"), (read_qrels, "qrels.dl19-passage.txt", "judgements")],
)
def test_what_is_missing_without_a_connection(
    kept: Path, read: Any, file: str, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as caught:
        read("dl19-passage")
    message = str(caught.value)
    assert message.startswith(
        f"dl19-passage: Pyserini downloads these {what} when they are first used, and could not ("
    )
    assert f"/topics-and-qrels/{file} on another machine and save it as {kept / file} (PYSERINI_CACHE" in message
    assert capfd.readouterr().out == "", "Anserini's messages are not among a command's results"


def test_a_damaged_file_is_named(kept: Path) -> None:
    write(kept, "topics.dl19-passage.txt", "no tab and no number\n")
    with pytest.raises(InputError, match=f"cannot read these topics .*Remove {kept / 'topics.dl19-passage.txt'}, and"):
        read_topics("dl19-passage")
    write(kept, "qrels.dl19-passage.txt", "19 Q0 007 high\n")
    with pytest.raises(InputError, match=r"qrels\.dl19-passage\.txt, line 1: the grade 'high'"):
        read_qrels("dl19-passage")


@pytest.mark.parametrize(
    ("read", "name", "message"),
    [
        (
            read_topics,
            "beir-v1.0.0-scifact-tset",
            "and no topics that Pyserini knows; did you mean 'beir-v1.0.0-scifact",
        ),
        (read_qrels, "dl19-passage-splade-v3", "and no judgements that Pyserini knows; did you mean 'dl19-passage'"),
        (read_qrels, "qqqqqqqq", "no such file or folder, and no judgements that Pyserini knows; check the spelling"),
    ],
)
def test_an_unknown_name(kept: Path, read: Any, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(name)


@pytest.mark.parametrize("source", ["none.tsv", "folder/none", "./none", "qrels.none.txt.gz"])
def test_what_is_written_like_a_path_is_a_file(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_pyserini", None)  # Java is not started
    with pytest.raises(InputError, match="no such topic file"):
        read_topics(source)
    with pytest.raises(InputError, match="cannot be read"):
        read_qrels(source)


@pytest.mark.parametrize("name", names.USED)
def test_pyserini_has_what_is_used(kept: Path, name: str) -> None:
    from pyserini.search import _base

    value: Any = _base
    for part in name.split("."):
        value = getattr(value, part)
    assert value is not None
