"""Files and folders are complete or absent whatever happens; the lock of their writer."""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.files import atomic
from diffretriever_pyserini.files.atomic import (
    held,
    only_writer,
    read_json,
    restore,
    restore_folder,
    whole_file,
    whole_folder,
    write_json,
    write_whole,
)


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
def test_an_output_of_another_program_stays(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine").touch()
    with pytest.raises(DiffRetrieverError, match="not an output of this command"), whole_folder(target, "marker"):
        pass
    assert target.exists()


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


def test_a_file_appears_at_the_end_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for text in ("first", "second"):
        before = path.read_text() if path.exists() else None
        with whole_file(path) as partial:
            partial.write_text(text)
            assert (path.read_text() if path.exists() else None) == before
        assert path.read_text() == text
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_an_error_leaves_the_older_file_alone(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", "older")
    with pytest.raises(RuntimeError), whole_file(tmp_path / "f") as partial:
        partial.write_text("half")
        raise RuntimeError
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("f", "older")]


def test_the_partial_file_of_a_killed_run_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "f.partial").write_text("much longer than what comes now")
    write_whole(tmp_path / "f", "now")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("f", "now")]


@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_a_link(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "deep").mkdir()
    if exists:
        (tmp_path / "deep" / "f").write_text("older")
    (tmp_path / "link").symlink_to("deep/f")
    with whole_file(tmp_path / "link") as partial:
        assert partial.parent == tmp_path / "deep"  # a rename must not leave the file system
        partial.write_text("newer")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "deep" / "f").read_text() == "newer"
    (tmp_path / "folder").symlink_to("deep/out")
    fill(tmp_path / "folder", "first")
    fill(tmp_path / "folder", "second")
    assert (tmp_path / "folder").is_symlink()
    assert (tmp_path / "deep" / "out" / "data").read_text() == "second"
    assert sorted(entry.name for entry in (tmp_path / "deep").iterdir()) == ["f", "out"]


def test_a_pipe_and_a_device_are_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, "through")
    reader.join()
    assert read == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    write_whole("/dev/null", "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_device_stays_a_device_and_a_disk_is_refused(tmp_path: Path) -> None:
    """As root in a container, ``--output /dev/null`` once replaced the device by a file."""
    try:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    except PermissionError:
        pytest.skip("device nodes cannot be made here")
    (tmp_path / "link").symlink_to("null")
    for name in ("null", "link"):
        write_whole(tmp_path / name, "gone")
    assert stat.S_ISCHR((tmp_path / "null").stat().st_mode)
    with pytest.raises(DiffRetrieverError, match=r"disk: cannot be written \(it is a disk\)"):
        write_whole(tmp_path / "disk", "x")
    with pytest.raises(DiffRetrieverError, match="null exists and is not an output of this command"):
        fill(tmp_path / "null", "first")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["disk", "link", "null"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
@pytest.mark.parametrize(
    ("mode", "expected"), [("w", "before\nlong x\nafter\n"), ("a", "old\nbefore\nlong x\nafter\n")]
)
def test_stdout_is_continued_even_if_it_is_a_file(tmp_path: Path, name: str, mode: str, expected: str) -> None:
    code = (
        "import sys; from diffretriever_pyserini.files.atomic import write_whole; print('before'); "
        "write_whole(sys.argv[1], 'long x\\n'); print('after')"
    )
    (tmp_path / "f").write_text("old\n")
    with (tmp_path / "f").open(mode) as file:
        subprocess.run([sys.executable, "-c", code, name], stdout=file, check=True)
    assert (tmp_path / "f").read_text() == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_the_mode_of_the_older_file_stays(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", "secret")
    (tmp_path / "f").chmod(0o600)
    write_whole(tmp_path / "f", "new secret")
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["none/f", "folder", "file/f"])
def test_a_path_that_cannot_be_written_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(DiffRetrieverError, match=f"{name}: cannot be written .*; correct that or give another path"):
        write_whole(tmp_path / name, "x")
    with pytest.raises(DiffRetrieverError), whole_folder(tmp_path / "file" / "deep", "marker"):
        pass
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_leaves_the_older_output_and_says_so(tmp_path: Path, kind: str) -> None:
    """A limit on the size of files simulates the disk: the system refuses the write in the same way."""
    write_whole(tmp_path / "file", "older")
    fill(tmp_path / "folder", "first")
    code = """
import resource, sys
from diffretriever_pyserini.files.atomic import whole_file, whole_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
output = whole_file(sys.argv[1]) if sys.argv[1].endswith("file") else whole_folder(sys.argv[1], "marker")
with output as path:
    (path / "data" if path.is_dir() else path).write_bytes(bytes(10_000))
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / kind)], capture_output=True, text=True)
    assert (
        f"{tmp_path / kind}: cannot be written (File too large); free some space and run the command again"
        in done.stderr
    )
    assert (tmp_path / "file").read_text() == "older"
    assert (tmp_path / "folder" / "data").read_text() == "first"
    assert not (tmp_path / "file.partial").exists()


def test_an_error_about_another_file_is_not_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), whole_file(tmp_path / "f"):
        (tmp_path / "other").read_bytes()
    with pytest.raises(FileNotFoundError, match="part"), whole_folder(tmp_path / "msmarco", "marker"):
        (tmp_path / "msmarco.store" / "part").read_bytes()


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.ESTALE])
def test_an_error_of_the_disk_that_names_no_file_is_explained(tmp_path: Path, number: int) -> None:
    with pytest.raises(DiffRetrieverError, match="f: cannot be written .*; correct that"), whole_file(tmp_path / "f"):
        raise OSError(number, os.strerror(number))
    with pytest.raises(BrokenPipeError), whole_file(tmp_path / "f"):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_two_writers_of_a_file_refuse_each_other(tmp_path: Path) -> None:
    with whole_file(tmp_path / "f") as partial:
        partial.write_text("first")
        with pytest.raises(DiffRetrieverError, match="f is being written by another process"):
            write_whole(tmp_path / "f", "second")
    assert (tmp_path / "f").read_text() == "first"


def test_a_lock_on_a_file_that_was_renamed_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A waiting process may lock a file that its writer has just renamed; the next process would lock a new one."""
    import filelock

    acquire, calls = filelock.FileLock.acquire, list[int]()

    def acquired(self: filelock.FileLock, *arguments: Any, **options: Any) -> Any:
        done = acquire(self, *arguments, **options)
        if not calls:
            (tmp_path / "f.partial").rename(tmp_path / "f")
        calls.append(1)
        return done

    monkeypatch.setattr(filelock.FileLock, "acquire", acquired)
    with only_writer(tmp_path / "f.partial", "f"):
        monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
        assert held(tmp_path / "f.partial")
        assert not held(tmp_path / "f")
    assert len(calls) == 2


def test_the_last_of_two_writers_wins_whole_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with whole_file(tmp_path / "f") as one, one.open("w") as first:
        first.write("long line of the first\n")
        first.flush()
        write_whole(tmp_path / "f", "second\n")
        assert (tmp_path / "f").read_text() == "second\n"
        first.write("and another\n")
    assert (tmp_path / "f").read_text() == "long line of the first\nand another\n"


def test_the_folder_exists_whenever_a_kill_comes(tmp_path: Path) -> None:
    """Where two folders can exchange names in one step, any reader always finds a complete folder."""
    code = """
import os, sys
from pathlib import Path
from diffretriever_pyserini.files import atomic
exchanged = atomic.exchanged
def killed(one, other):
    if sys.argv[2] == "after":
        assert exchanged(one, other)
    os.kill(os.getpid(), 9)
atomic.exchanged = killed
with atomic.whole_folder(sys.argv[1], "marker") as folder:
    (folder / "data").write_text("second")
    (folder / "marker").touch()
"""
    out = tmp_path / "out"
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    if not atomic.exchanged(tmp_path / "one", tmp_path / "two"):
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
from diffretriever_pyserini.files import atomic
atomic.exchanged = lambda one, other: False  # as on a file system that cannot
rename, done = Path.rename, []
def renamed(self, target):
    if len(done) == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
    done.append(target)
    return rename(self, target)
Path.rename = renamed
remove = atomic._remove
atomic._remove = lambda folder: os.kill(os.getpid(), 9) if len(done) == 2 else remove(folder)  # the last step
with atomic.whole_folder(sys.argv[1], "marker") as folder:
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
    monkeypatch.setattr(atomic, "exchanged", lambda one, other: False)
    with pytest.raises(DiffRetrieverError, match=r"out: cannot be written \(Permission denied\)"):
        fill(tmp_path / "out", "second")
    assert (tmp_path / "out" / "data").read_text() == "first"


def test_a_partly_removed_folder_is_not_restored(tmp_path: Path) -> None:
    (tmp_path / "out.replaced").mkdir()
    (tmp_path / "out.replaced" / "data").touch()
    restore_folder(tmp_path / "out", "marker")
    assert not (tmp_path / "out").exists()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / "lock"
    code = """
import sys
from pathlib import Path
from diffretriever_pyserini.files.atomic import only_writer
with only_writer(Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(lock)], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert held(lock)
        with pytest.raises(DiffRetrieverError, match="x is being written by another process"), only_writer(lock, "x"):
            pass
        process.kill()
        with only_writer(lock, "x", wait=True):
            pass
    assert not held(lock)


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    refused = pytest.raises(DiffRetrieverError, match="lock: this file system cannot lock files")
    with refused, only_writer(tmp_path / "lock", "x"):
        pass
    assert not (tmp_path / "lock").exists()
    write_whole(tmp_path / "f", "a single file is written all the same")
    assert (tmp_path / "f").read_text().startswith("a single file")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"a": 1,\n"b": }', "f.json, line 2: broken JSON"), ("[1]", "expected a JSON object, found list")],
)
def test_json_that_is_no_object_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "f.json")
    with pytest.raises(InputError, match="none: cannot be read"):
        read_json(tmp_path / "none")
    write_json(tmp_path / "f.json", {"b": "ü", "a": [1]})
    assert read_json(tmp_path / "f.json") == {"a": [1], "b": "ü"}


def test_a_file_name_that_is_not_utf_8_can_be_stored(tmp_path: Path) -> None:
    values = {"file": os.fsdecode(b"\xff.jsonl")}
    write_json(tmp_path / "f.json", values)
    assert read_json(tmp_path / "f.json") == values
