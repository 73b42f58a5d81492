"""What tests of whole files and of whole folders share."""

from pathlib import Path

from diffretriever_pyserini.files.folders import whole_folder


def fill(target: Path, text: str) -> None:
    with whole_folder(target, "marker") as folder:
        (folder / "data").write_text(text)
        assert (target / "data").exists() is (text == "second")  # nothing of this attempt is visible yet
        (folder / "marker").touch()
