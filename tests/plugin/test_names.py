"""Topics and judgements by Pyserini's names, from files in its folder; no network is used.

Java's proxy is a closed port, and what Pyserini 2.4 downloads comes from a folder.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini import read_qrels, read_topics
from diffretriever_pyserini.errors import InputError
from diffretriever_pyserini.plugin import names
from diffretriever_pyserini.plugin.lists import USED

pytestmark = pytest.mark.java

READERS = "io.anserini.search.topicreader"
TOPICS = {
    "dl19-passage": {"path": "topics.dl19-passage.txt", "reader_class": f"{READERS}.TsvIntTopicReader"},
    "beir-v1.0.0-scifact-test": {
        "path": "topics.beir-v1.0.0-scifact.test.tsv.gz",
        "reader_class": f"{READERS}.TsvStringTopicReader",
    },
}
QRELS = {"dl19-passage": "qrels.dl19-passage.txt"}
Kept = Callable[[str], Path]


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """What Pyserini 2.4 downloads."""
    folder = tmp_path / "server"
    folder.mkdir()
    for name, content in {"topics": TOPICS, "qrels": QRELS, "topics-aliases": {}, "qrels-aliases": {}}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def base(server: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pyserini's module of topics and judgements, with addresses in ``server``."""
    from diffretriever_pyserini.runtime import java

    java.prepare()
    from pyserini.search import _base

    if hasattr(_base, "EVAL_BASE_URL"):
        for name, folder in {"EVAL": "", "TOPICS": "topics/", "QRELS": "qrels/"}.items():
            monkeypatch.setattr(_base, f"{name}_BASE_URL", f"{server.as_uri()}/{folder}")
        for kind in ("topics", "qrels"):
            monkeypatch.setattr(_base, f"_{kind}_mapping", None)
    return _base


def version(base: Any) -> str:
    return "2.3" if hasattr(base, "topics_mapping") else "2.4"


@pytest.fixture
def kept(base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """Where Pyserini keeps a file of topics or judgements."""
    from pyserini.pyclass import autoclass

    cache = tmp_path / "cache"
    system: Any = autoclass("java.lang.System")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYSERINI_CACHE", str(cache))
    values = {"pyserini.cache": str(cache), "https.proxyHost": "127.0.0.1", "https.proxyPort": "9"}
    before = {name: system.setProperty(name, value) for name, value in values.items()}
    yield lambda file: cache / ("topics-and-qrels" if version(base) == "2.3" else file.partition(".")[0]) / file
    for name, value in before.items():
        if value is None:
            system.clearProperty(name)
        else:
            system.setProperty(name, value)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def test_topics(kept: Kept) -> None:
    write(kept("topics.dl19-passage.txt"), '19\tbest fox\n2\ta query with "quotes"\n100\tsunlight\n')
    assert list(read_topics("dl19-passage").items()) == [
        ("2", 'a query with "quotes"'),
        ("19", "best fox"),
        ("100", "sunlight"),
    ]


def test_ids_stay_as_they_are(kept: Kept) -> None:
    write(kept("topics.beir-v1.0.0-scifact.test.tsv.gz"), "007\tfinance\n7\tplants\n")
    assert read_topics("beir-v1.0.0-scifact-test") == {"007": "finance", "7": "plants"}


def test_judgements(kept: Kept, capfd: pytest.CaptureFixture[str]) -> None:
    write(kept("qrels.dl19-passage.txt"), "19 Q0 007 3\n19 Q0 8 0\n")
    assert read_qrels("dl19-passage") == {"19": {"007": 3, "8": 0}}
    assert capfd.readouterr().out == ""


def test_a_path_of_the_same_name_wins(kept: Kept, tmp_path: Path) -> None:
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
    kept: Kept, read: Any, file: str, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as caught:
        read("dl19-passage")
    message = str(caught.value)
    assert message.startswith(
        f"dl19-passage: Pyserini downloads these {what} when they are first used, and could not ("
    )
    assert f"/{file} on another machine and save it as {kept(file)} (PYSERINI_CACHE" in message
    assert capfd.readouterr().out == "", "Anserini's messages are not among a command's results"


def test_a_damaged_file_is_named(kept: Kept) -> None:
    write(kept("topics.dl19-passage.txt"), "no tab and no number\n")
    with pytest.raises(InputError, match=f"cannot read these topics .*Remove {kept('topics.dl19-passage.txt')}, and"):
        read_topics("dl19-passage")
    write(kept("qrels.dl19-passage.txt"), "19 Q0 007 high\n")
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
        (
            read_qrels,
            "dl19-passage-splade-v3",
            r"and no judgements that Pyserini knows; did you mean 'dl19-passage'\?$",
        ),
        (
            read_qrels,
            "qqqqqqqq",
            r"no such file or folder, and no judgements that Pyserini knows; check the spelling\.$",
        ),
    ],
)
def test_an_unknown_name(kept: Kept, read: Any, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(name)


@pytest.mark.parametrize("source", ["none.tsv", "folder/none", "./none", "qrels.none.txt.gz"])
def test_what_is_written_like_a_path_is_a_file(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_pyserini", None)  # Java is not started
    with pytest.raises(InputError, match="no such topic file"):
        read_topics(source)
    with pytest.raises(InputError, match="cannot be read"):
        read_qrels(source)


def test_pyserini_has_what_is_used(base: Any) -> None:
    for name in USED[version(base)]:
        value: Any = base
        for part in name.split("."):
            value = getattr(value, part)
        assert value is not None


def test_a_download_is_kept(base: Any, kept: Kept, server: Path) -> None:
    if version(base) == "2.3":
        pytest.skip("Anserini downloads from an address that cannot be changed")
    write(server / "topics" / "topics.dl19-passage.txt", "19\tbest fox\n")
    write(server / "qrels" / "qrels.dl19-passage.txt", "19 Q0 007 3\n")
    for _ in range(2):
        assert read_topics("dl19-passage") == {"19": "best fox"}
        assert read_qrels("dl19-passage") == {"19": {"007": 3}}
        (server / "topics" / "topics.dl19-passage.txt").unlink(missing_ok=True)
        (server / "qrels" / "qrels.dl19-passage.txt").unlink(missing_ok=True)
    assert kept("topics.dl19-passage.txt").is_file() and kept("qrels.dl19-passage.txt").is_file()


@pytest.mark.parametrize(("read", "kind"), [(read_topics, "topics"), (read_qrels, "qrels")])
def test_without_the_list_a_file_is_asked_for(base: Any, kept: Kept, server: Path, read: Any, kind: str) -> None:
    if version(base) == "2.3":
        pytest.skip("Pyserini has the list")
    (server / f"{kind}.json").unlink()
    with pytest.raises(InputError, match=rf"^dl19-passage: no such .*could not download its list.*/{kind}\.json, URLE"):
        read("dl19-passage")
