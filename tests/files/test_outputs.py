"""Output paths that are refused: inputs, other outputs, folders that cannot be replaced, and invalid names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diffretriever_pyserini.errors import DiffRetrieverError, InputError
from diffretriever_pyserini.files.atomic import write_whole
from diffretriever_pyserini.files.folders import whole_folder
from diffretriever_pyserini.files.outputs import exchanged, real_target, refuse_inputs


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to a folder with ``file``, ``folder/inside``, ``link`` to the file and ``linked`` to the folder."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder" / "inside").write_text("mine")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "linked").symlink_to("folder")
    (tmp_path / "run.partial").touch()
    (tmp_path / "ix.unfinished").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("output", "source", "message"),
    [
        ("file", "file", "--output file would overwrite --input file"),
        ("./folder/../file", "file", "would overwrite"),
        ("link", "file", "would overwrite"),
        ("file", "link", "would overwrite"),
        ("linked/inside", "folder/inside", "would overwrite"),
        ("folder/new", "folder", "would be inside"),
        ("linked/deep/new", "folder", "would be inside"),
        ("new", ".", "would be inside"),
        ("folder", "folder/inside", "would replace the folder of --input folder/inside"),
        ("run", "run.partial", "would overwrite"),
        ("ix", "ix.unfinished", "would overwrite"),
    ],
)
def test_an_output_that_is_an_input_is_refused(output: str, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        refuse_inputs({"--output": Path(output)}, {"--other": None, "--input": [Path("file2"), source]})


def test_an_output_apart_from_the_inputs_is_accepted() -> None:
    refuse_inputs(
        {"--output": "folder2/new", "--plot": None, "--deltas": "file.txt"},
        {"--topics": "file", "--corpus": ["folder", "owner/name", "not/there"], "--index": None},
    )


def test_two_outputs_may_not_be_one_file_unless_it_is_a_device() -> None:
    with pytest.raises(InputError, match="--per-query and --deltas are one file"):
        refuse_inputs({"--per-query": "new", "--deltas": "./new"}, {})
    os.mkfifo("pipe")
    refuse_inputs({"--per-query": "pipe", "--deltas": "pipe"}, {"--run": "file"})


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_an_invalid_name_is_refused(name: str) -> None:
    for write in (lambda: write_whole(name, "x"), lambda: whole_folder(name, "marker").__enter__()):
        with pytest.raises(DiffRetrieverError, match="is no name of a file or folder"):
            write()


def test_a_link_that_leads_to_itself_is_refused_and_stays(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DiffRetrieverError, match="loop: a symbolic link that leads to itself"):
        real_target("loop")
    with pytest.raises(DiffRetrieverError, match="leads to itself"):
        write_whole(tmp_path / "loop", "x")
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.parametrize("name", [".", "", "..", "../", "/", "/proc"])
def test_a_folder_that_cannot_be_replaced_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """The shell would lose its current directory; a mount point cannot be renamed at all."""
    with pytest.raises(DiffRetrieverError), whole_folder(name, "marker"):
        pytest.fail("the work has begun")
    with pytest.raises(DiffRetrieverError), whole_folder(Path(name), "marker"):
        pytest.fail("the work has begun")
    assert not list(tmp_path.parent.glob("*.unfinished"))


def test_two_folders_exchange_names_in_one_step(tmp_path: Path) -> None:
    if not exchanged(tmp_path / "folder", tmp_path / "ix.unfinished"):
        pytest.skip("this file system cannot exchange two names")
    assert not list((tmp_path / "folder").iterdir())
    assert (tmp_path / "ix.unfinished" / "inside").read_text() == "mine"
    assert not exchanged(tmp_path / "folder", tmp_path / "none")
