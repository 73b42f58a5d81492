"""A folder is complete or absent whatever happens, and a reader or a kill finds the older or the newer one."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffretriever_pyserini.errors import DiffRetrieverError
from diffretriever_pyserini.files import folders
from diffretriever_pyserini.files.folders import restore, restore_folder, whole_folder

from .conftest import fill


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


def test_an_empty_folder_is_accepted(tmp_path: Path) -> None:
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


def test_the_work_folder_of_a_killed_run_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "out.unfinished" / "deep").mkdir(parents=True)
    (tmp_path / "out.unfinished" / "data").touch()
    with whole_folder(tmp_path / "out", "marker") as folder:
        assert not list(folder.iterdir())
        (folder / "marker").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["marker"]


def test_the_folder_exists_whenever_a_kill_comes(tmp_path: Path) -> None:
    """Where two folders can exchange names in one step, any reader always finds a complete folder."""
    code = """
import os, sys
from pathlib import Path
from diffretriever_pyserini.files import folders
exchanged = folders.exchanged
def killed(one, other):
    if sys.argv[2] == "after":
        assert exchanged(one, other)
    os.kill(os.getpid(), 9)
folders.exchanged = killed
with folders.whole_folder(sys.argv[1], "marker") as folder:
    (folder / "data").write_text("second")
    (folder / "marker").touch()
"""
    out = tmp_path / "out"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    if not folders.exchanged(tmp_path / "one", tmp_path / "two"):
        pytest.skip("this file system cannot exchange two names")
    fill(out, "first")
    for when, expected in (("before", "first"), ("after", "second")):
        done = subprocess.run([sys.executable, "-c", code, str(out), when], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert (out / "data").read_text() == expected
    fill(out, "second")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["one", "out", "two"]


def test_a_reader_of_a_file_inside_restores_the_older_folder(tmp_path: Path) -> None:
    older = tmp_path / "mined.replaced"
    older.mkdir()
    (older / "train.jsonl").write_text("rows")
    restore(tmp_path / "mined" / "train.jsonl")
    assert older.exists()  # it lacks the file that its command writes last, so it is not complete
    (older / "mined.json").touch()
    restore(tmp_path / "elsewhere" / "train.jsonl")
    restore(tmp_path / "mined" / "corpus" / "none.jsonl")
    assert (tmp_path / "mined" / "train.jsonl").read_text() == "rows"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mined"]


KILLED = """
import os, sys
from pathlib import Path
from diffretriever_pyserini.files import folders
folders.exchanged = lambda one, other: False  # as on a file system that cannot
rename, done = Path.rename, []
def renamed(self, target):
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    done.append(target)
    return rename(self, target)
Path.rename = renamed
remove = folders._remove
folders._remove = lambda folder: os.kill(os.getpid(), 9) if len(done) == 2 else remove(folder)  # the last step
with folders.whole_folder(sys.argv[1], "marker") as folder:
    (folder / "data").write_text("second")
    (folder / "marker").touch()
"""


@pytest.mark.parametrize(("renames", "expected"), [(0, "first"), (1, "first"), (2, "second")])
def test_a_kill_while_the_folder_is_replaced_loses_nothing(tmp_path: Path, renames: int, expected: str) -> None:
    out = tmp_path / "out"
    fill(out, "first")
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(renames)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert out.exists() is (renames != 1)
    restore_folder(out, "marker")
    assert (out / "data").read_text() == expected
    with whole_folder(out, "marker") as folder:
        (folder / "data").write_text("third")
        (folder / "marker").touch()
    assert (out / "data").read_text() == "third"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_failed_rename_restores_the_older_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "out", "first")
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        if self.name == "out.unfinished":
            raise PermissionError(13, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    monkeypatch.setattr(folders, "exchanged", lambda one, other: False)
    with pytest.raises(DiffRetrieverError, match=r"out: cannot be written \(Permission denied\)"):
        fill(tmp_path / "out", "second")
    assert (tmp_path / "out" / "data").read_text() == "first"


def test_a_partly_removed_folder_is_not_restored(tmp_path: Path) -> None:
    (tmp_path / "out.replaced").mkdir()
    (tmp_path / "out.replaced" / "data").touch()
    restore_folder(tmp_path / "out", "marker")
    assert not (tmp_path / "out").exists()
