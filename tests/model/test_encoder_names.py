"""Names for ``--encoder``: prebuilt names, ids, folders and YAML files, with and without our prefix and suffix."""

from pathlib import Path

import pytest

from diffretriever_pyserini.errors import ConfigError
from diffretriever_pyserini.model.encoder_names import EncoderName, is_model_path, is_ours, parse_encoder_name


@pytest.mark.parametrize(
    ("name", "target", "lexical"),
    [
        ("diffretriever", "diffretriever-mini", False),
        ("DiffRetriever", "diffretriever-mini", False),
        ("diffretriever-lexical", "diffretriever-mini", True),
        ("diffretriever-mini", "diffretriever-mini", False),
        ("diffretriever-dream-7b-single-lexical", "diffretriever-dream-7b-single", True),
        ("ielabgroup/diffretriever-llada-8b-single", "ielabgroup/diffretriever-llada-8b-single", False),
        ("ielabgroup/diffretriever-llada-8b-single-lexical", "ielabgroup/diffretriever-llada-8b-single", True),
        ("diffretriever:Dream-org/Dream-v0-Instruct-7B", "Dream-org/Dream-v0-Instruct-7B", False),
        ("diffretriever:dream-7b-zeroshot-q4-p16-lexical", "dream-7b-zeroshot-q4-p16", True),
        ("diffretriever-lexical:/models/finance/dpr", "/models/finance/dpr", True),
        ("Diffretriever-Lexical:./openclip.yaml", "./openclip.yaml", True),
        ("diffretriever:/data/ance/dse/auto", "/data/ance/dse/auto", False),
        ("/models/diffretriever-finance", "/models/diffretriever-finance", False),
        ("C:/models/x", "C:/models/x", False),
        (" diffretriever:diffretriever ", "diffretriever-mini", False),
    ],
)
def test_a_name_is_parsed(name: str, target: str, lexical: bool) -> None:
    assert parse_encoder_name(name, is_model=lambda _: False) == EncoderName(target, lexical)


@pytest.mark.parametrize("name", ["", "  ", "diffretriever:", "diffretriever-lexical:  ", "-lexical"])
def test_a_name_without_a_model_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="names no model"):
        parse_encoder_name(name)


def test_a_model_folder_that_ends_in_lexical_is_that_folder(tmp_path: Path) -> None:
    folder = tmp_path / "my-lexical"
    folder.mkdir()
    assert parse_encoder_name(f"diffretriever:{folder}") == EncoderName(str(tmp_path / "my"), True)
    (folder / "config.json").write_text("{}")
    assert parse_encoder_name(f"diffretriever:{folder}") == EncoderName(str(folder), False)
    assert parse_encoder_name(f"diffretriever-lexical:{folder}") == EncoderName(str(folder), True)
    assert parse_encoder_name(f"diffretriever:{folder}-lexical") == EncoderName(str(folder), True)


def test_an_output_folder_of_the_default_name_is_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "diffretriever-lexical").mkdir()
    (tmp_path / "diffretriever-lexical/embeddings.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    assert parse_encoder_name("diffretriever-lexical") == EncoderName("diffretriever-mini", True)


def test_only_yaml_files_and_checkpoints_are_models(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").touch()
    (tmp_path / "queries.jsonl").touch()
    assert is_model_path(str(tmp_path / "a.yaml"))
    assert not is_model_path(str(tmp_path / "queries.jsonl"))
    assert not is_model_path(str(tmp_path))
    (tmp_path / "adapter_config.json").touch()
    assert is_model_path(str(tmp_path))


@pytest.mark.parametrize("name", ["diffretriever-mini", "/models/finance", "org/model"])
@pytest.mark.parametrize("lexical", [False, True])
def test_a_name_is_parsed_as_it_was_written(name: str, lexical: bool) -> None:
    written = str(EncoderName(name, lexical))
    assert is_ours(written)
    assert parse_encoder_name(written, is_model=lambda _: False) == EncoderName(name, lexical)
