"""Write the adapter folder: LoRA weights, the head, and the settings that the package reads."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from mini.student import LORA_LAYERS, LORA_TARGETS, MASK, Student


def save_adapter(student: Student, folder: Path, terms: str, max_length: int, rank: int, alpha: int) -> None:
    """Write adapter_config.json, adapter_model.safetensors, head.safetensors, retriever_config.json to ``folder``."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    lora, head = {}, {}
    for name, parameter in student.peft.named_parameters():
        tensor = parameter.detach().to("cpu", torch.float16).contiguous()
        if ".lora_" in name:
            lora[name.replace(".default.weight", ".weight")] = tensor
        elif parameter.requires_grad:
            head[name.removeprefix("base_model.model.")] = tensor
    save_file(lora, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    save_file(head, folder / "head.safetensors", metadata={"format": "pt"})
    adapter_config = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": "sentence-transformers/all-MiniLM-L6-v2",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_to_transform": LORA_LAYERS,
        "layers_pattern": "layer",
        "modules_to_save": None,
        "target_modules": LORA_TARGETS,
        "use_dora": False,
        "use_rslora": False,
    }
    retriever_config = {
        "model_type": "masked_lm",
        "mask_token_id": MASK,
        "hidden_size": student.bert.config.hidden_size,
        "max_length": max_length,
        "n_gen_tokens": student.k_query if student.k_query == student.k_passage else 4,
        "n_gen_q_tokens": student.k_query,
        "n_gen_p_tokens": student.k_passage,
        "n_tail": 1,
        "num_denoise_steps": 1,
        "normalize": True,
        "layout": "bert",
        "prompt": "none",
        "lexical_terms": terms,
        "impact_rounding": "nearest",
        "mask_position_ids": student.mask_positions,
        "mask_token_type": 0,
        "lora_rank": rank,
        "lora_alpha": alpha,
    }
    for name, content in {"adapter_config": adapter_config, "retriever_config": retriever_config}.items():
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
