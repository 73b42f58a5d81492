"""Our errors in Pyserini's commands: one sentence, with a traceback on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..end_to_end.commands import attempt

COMMAND = "input --corpus none.jsonl --fields title contents output --embeddings D encoder --encoder diffretriever"


@pytest.mark.usefixtures("hook_installed")
@pytest.mark.parametrize("traced", ["0", "1"])
def test_an_error_of_ours_is_a_sentence(tmp_path: Path, traced: str) -> None:
    done = attempt("encode", COMMAND, tmp_path, DIFFRETRIEVER_TRACEBACK=traced)
    assert done.returncode == 1
    assert ("Traceback" in done.stderr) is (traced == "1")
    before = "pyserini.encode: error: " if traced == "0" else "diffretriever_pyserini.errors.InputError: "
    assert done.stderr.splitlines()[-1].startswith(f"{before}input --fields title contents has no field 'text'")
    assert not (tmp_path / "D").exists()
