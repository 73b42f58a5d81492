"""`train --plan`: the counts are those of the models that a run builds; which settings change its memory."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.training import plan as module
from diffretriever_pyserini.training.lora import trainable_backbone
from diffretriever_pyserini.training.run import lora_for, retriever_for
from diffretriever_pyserini.training.settings import TrainSettings, read_settings

from ..model.conftest import tiny_bert

__all__ = ["tiny_bert"]

REPOSITORY = Path(__file__).resolve().parents[2]
# config.json of the published bases, without values that do not change a size
DREAM = {
    "model_type": "Dream", "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944,
    "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
    "rope_theta": 1e6, "mask_token_id": 151666, "tie_word_embeddings": False,
}  # fmt: skip
LLADA = {
    "model_type": "llada", "embedding_size": 126464, "vocab_size": 126464, "d_model": 4096, "mlp_hidden_size": 12288,
    "n_layers": 32, "n_heads": 32, "n_kv_heads": 32, "max_sequence_length": 4096, "rms_norm_eps": 1e-5,
    "rope_theta": 5e5, "mask_token_id": 126336, "block_type": "llama", "activation_type": "silu",
    "layer_norm_type": "rms", "rope": True, "alibi": False, "attention_layer_norm": False, "input_emb_norm": False,
    "scale_logits": False, "include_bias": False, "include_qkv_bias": False, "weight_tying": False,
}  # fmt: skip


@pytest.fixture
def bases(tmp_path: Path) -> dict[str, str]:
    """Folders of the two bases with nothing in them but config.json."""
    folders = {"Dream-org/Dream-v0-Instruct-7B": DREAM, "GSAI-ML/LLaDA-8B-Instruct": LLADA}
    for name, values in folders.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps(values))
    return {name: str(tmp_path / name) for name in folders}


def example(name: str, bases: dict[str, str]) -> TrainSettings:
    settings = read_settings(REPOSITORY / "examples" / "train" / f"{name}-msmarco.yaml")
    return replace(settings, model=bases[settings.model])


def figures(settings: TrainSettings, gpus: int = 8) -> dict[str, float]:
    """Bytes on a device by purpose, and the counts of parameters."""
    config = retriever_for(settings)
    model = module.empty_base(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    trained = module._trained(model, settings, config)
    return module._memory(model, settings, config, gpus, total, trained) | {"total": total, "trained": trained}


def test_the_published_models_by_hand(bases: dict[str, str]) -> None:
    dream = 28 * (2 * 3584**2 + 2 * 3584 * 512 + 3 * 3584 * 18944 + 3584 + 2 * 512) + 57 * 3584 + 2 * 152064 * 3584
    lora = 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    plan = figures(example("dream-7b", bases))
    assert (plan["total"], plan["trained"]) == (dream, lora) == (7_615_616_512, 40_370_176)
    assert plan["weights"] == 2 * dream
    assert plan["Adam's two moments"] == lora
    sizes = (4 * 3584 + 2 * 3584 + 18944, 3584 + 2 * 512 + 3584 + 2 * 18944 + 3584)  # of a block: inputs, outputs
    block = 2 * sum(sizes) + 8 * sizes[0]
    assert plan["activations of 16 texts"] == 16 * 175 * (28 * 2 * 3584 + block)
    llada = 32 * (4 * 4096**2 + 3 * 4096 * 12288) + 65 * 4096 + 2 * 126464 * 4096
    lora = 16 * (32 * (4 * (4096 + 4096) + 3 * (4096 + 12288)) + 4096 + 126464)  # the output head, too
    plan = figures(example("llada-8b", bases))
    assert (plan["total"], plan["trained"]) == (llada, lora) == (8_015_581_184, 44_032_000)
    assert plan["weights"] == 4 * llada / 8  # float32, sharded by FSDP


@pytest.mark.parametrize(
    ("name", "r"),
    [
        ("tiny-dream", 4),
        ("tiny-dream", 0),
        ("tiny-llada", 4),
        ("tiny-llada", 0),
        ("tiny-dream-adapter", 4),
        ("tiny-a2d-qwen3", 0),
        ("tiny-llada-moe", 4),
    ],
)
def test_what_is_counted_is_what_is_trained(name: str, r: int, conformance_dir: Path) -> None:
    settings = TrainSettings(str(conformance_dir / "checkpoints" / name), ("d",), "o", lora_r=r)
    config = retriever_for(settings)
    backbone = trainable_backbone(config, torch.float32, lora_for(settings, config))
    trained = sum(one.numel() for one in backbone.model.parameters() if one.requires_grad)
    assert figures(settings)["trained"] == trained


def test_the_experts_of_a_token_are_counted(conformance_dir: Path, tmp_path: Path) -> None:
    raw = json.loads((conformance_dir / "checkpoints" / "tiny-llada-moe" / "config.json").read_text())
    activations = []
    for count in (2, 4):
        (tmp_path / "config.json").write_text(json.dumps(raw | {"num_experts_per_tok": count}))
        plan = figures(TrainSettings(str(tmp_path), ("d",), "o", batch_size=1, negatives=1, chunk=0))
        activations.append(next(size for what, size in plan.items() if what.startswith("activations")))
    tokens = 2 * (156 + 4 + 3)
    assert activations[1] - activations[0] == tokens * 3 * 2 * (2 * 32 + 3 * 24) * 2  # layers, experts, widths, bytes


@pytest.mark.parametrize(
    ("model", "train_head"),
    [("sentence-transformers/all-MiniLM-L6-v2", False), ("bert", True), ("bert", False)],
)
def test_a_masked_models_head_is_counted(model: str, train_head: bool, tiny_bert: Path) -> None:
    """The first has no head of its own, so the run trains one."""
    name = str(tiny_bert) if model == "bert" else model
    settings = TrainSettings(name, ("d",), "o", train_head=train_head)
    config = retriever_for(settings)
    backbone = trainable_backbone(config, torch.float32, lora_for(settings, config), train_head)
    trained = sum(one.numel() for one in backbone.model.parameters() if one.requires_grad)
    assert figures(settings)["trained"] == trained


def test_memory_falls_with_chunks_and_checkpointing_and_spreading(bases: dict[str, str]) -> None:
    settings = example("dream-7b", bases)

    def total(**changes: object) -> float:
        return sum(figures(replace(settings, **changes)).values())  # type: ignore[arg-type]

    assert total(chunk=4) < total() < total(chunk=0)
    assert total() < total(gradient_checkpointing=False)
    assert total(deepspeed=None, fsdp="f") < total() < total(deepspeed=None)
    assert total(k_passage=1) < total() < total(lora_r=0)


def test_the_page_shows_the_plan(
    bases: dict[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
    shown = page.partition("The second command prints:\n\n```text\n")[2].partition("\n```\n")[0]
    path = REPOSITORY / "examples" / "train" / "dream-7b-msmarco.yaml"
    monkeypatch.chdir(tmp_path)  # where its model's name is a folder
    assert main(["train", "--plan", "--config", str(path), "--gpus", "8"]) == 0
    assert capsys.readouterr().out.strip() == shown


def test_the_verdict_and_the_steps(bases: dict[str, str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = tmp_path / "d.jsonl"
    data.write_text("{}\n" * 1000)
    command = ["train", "--plan", "--model", bases["GSAI-ML/LLaDA-8B-Instruct"], "--data", str(data), "--output", "o"]
    assert main([*command, "--chunk", "16", "--gradient-checkpointing", "true", "--epochs", "2", "--gpus", "2"]) == 0
    out = capsys.readouterr().out
    assert "of 80: fits" in out and "steps: 62 for 1,000 rows, 32 queries each" in out
    assert main([*command, "--max-steps", "7", "--gpu-memory", "24"]) == 0
    out = capsys.readouterr().out
    assert "of 24: does NOT fit" in out and "steps: 7, 16 queries each" in out
    assert main(["train", "--plan", "--model", "no-such-model", "--data", str(data), "--output", "o"]) == 2
    with pytest.raises(SystemExit):
        main([*command, "--gpus", "0"])
    assert "argument --gpus: '0' must be a whole number of at least 1" in capsys.readouterr().err
    assert not Path("o").exists()


def test_no_weights_are_requested_from_the_hub(bases: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    requests = []

    def download(name: str, allow_patterns: list[str], ignore_patterns: list[str] | None) -> str:
        requests.append(ignore_patterns)
        return bases[name]

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    settings = TrainSettings("GSAI-ML/LLaDA-8B-Instruct", ("d",), "o")
    assert "8,015.6 M parameters" in module.plan(settings, 8, 80)
    assert requests and all(ignored == ["*.safetensors"] for ignored in requests)
