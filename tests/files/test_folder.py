"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from diffretriever_pyserini.errors import DiffRetrieverError
from diffretriever_pyserini.files.folder import whole_folder


def fill(target: Path, text: str) -> None:
    with whole_folder(target, "marker") as folder:
        (folder / "data").write_text(text)
        assert (target / "data").exists() is (text == "second")  # nothing of this attempt is visible yet
        (folder / "marker").touch()


def test_the_folder_appears_at_the_end_and_is_replaced_whole(tmp_path: Path) -> None:
    fill(tmp_path / "out", "first")
    fill(tmp_path / "out", "second")
    assert (tmp_path / "out" / "data").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_leaves_the_older_output_alone(tmp_path: Path) -> None:
    fill(tmp_path / "out", "first")
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "out", "marker") as folder:
        (folder / "data").write_text("half")
        raise RuntimeError
    assert (tmp_path / "out" / "data").read_text() == "first"
    assert (tmp_path / "out.unfinished" / "data").read_text() == "half"
    fill(tmp_path / "out", "second")
    assert not (tmp_path / "out.unfinished").exists()


def test_a_block_without_its_marker_is_not_complete(tmp_path: Path) -> None:
    with pytest.raises(DiffRetrieverError, match="not complete"), whole_folder(tmp_path / "out", "marker"):
        pass
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_not_ours_stays(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()
    with pytest.raises(DiffRetrieverError, match="not an output of this command"), whole_folder(target, "marker"):
        pass
    assert target.exists()


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out", "marker") as folder:
        (folder / "marker").touch()
    assert (tmp_path / "out" / "marker").exists()


def test_two_writers_refuse_each_other(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out", "marker") as folder:
        (folder / "marker").touch()
        with pytest.raises(DiffRetrieverError, match="by another process"), whole_folder(tmp_path / "out", "marker"):
            pass
        assert (folder / "marker").exists()
    fill(tmp_path / "other", "first")  # and nothing stays locked
    with whole_folder(tmp_path / "out", "marker") as folder:
        (folder / "marker").touch()


def test_leftovers_of_a_killed_run_are_cleared(tmp_path: Path) -> None:
    (tmp_path / "out.unfinished" / "deep").mkdir(parents=True)
    (tmp_path / "out.unfinished" / "data").touch()
    with whole_folder(tmp_path / "out", "marker") as folder:
        assert not list(folder.iterdir())
        (folder / "marker").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["marker"]
