"""Files are complete or absent whatever happens; the lock of their writer; JSON files."""

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.files.atomic import (
    held,
    only_writer,
    read_json,
    whole_file,
    write_json,
    write_whole,
)
from diffretriever_pyserini.files.folders import whole_folder

from .conftest import fill


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
from diffretriever_pyserini.files.atomic import whole_file
from diffretriever_pyserini.files.folders import whole_folder
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
