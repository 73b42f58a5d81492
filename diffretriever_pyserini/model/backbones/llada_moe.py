"""LLaDA-MoE: Qwen3-MoE's architecture with full attention (LLaDA-MoE-7B-A1B, whose model_type is ``llada``, too)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...files.atomic import read_json
from .base import Backbone, check_family, check_stored, decoder_path, equal_names, load_weights, readable_config, refuse
from .facts import ChatFacts, ReleaseFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# A key of Qwen3MoeConfig, and the key in the checkpoint's config.json.
_KEYS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "num_experts": "num_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "moe_intermediate_size": "expert_intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
}
_OPTIONAL = ("hidden_act", "attention_bias", "attention_dropout", "rope_scaling", "bos_token_id", "eos_token_id")
# Settings of LLaDA-MoE's code that Qwen3-MoE's lacks. The code itself ignores norm_topk_prob and routed_scaling_factor.
_FIXED: dict[str, tuple[Any, ...]] = {
    "shared_expert_intermediate_size": (None, 0),
    "moe_router_enable_expert_bias": (False, None),
    "moe_router_score_function": ("softmax", None),
    "clip_qkv": (None,),
    "partial_rotary_factor": (1, None),
    "qk_layernorm": (True, None),
    "use_sliding_window": (False, None),
    "tie_word_embeddings": (False, None),
    "quantization_config": (None,),
}

RELEASE = ReleaseFacts(
    model_type="llada_moe",
    task_type="FEATURE_EXTRACTION",
    budgets=(4, 4),
    max_length=156,
    # No targets: transformers' experts are no linear layers, so LoRA adapts the attention (and layers without experts).
    chat=ChatFacts(masks=("<|mask|>",), mask_id=156895, ends_of_turn=("<|role_end|>",)),
)


class LladaMoeBackbone(Backbone):
    """Qwen3MoeForCausalLM run bidirectionally; padding is masked, which the hub's code does not do.

    transformers stacks the experts of a layer in two tensors; checkpoints have three matrices per expert.
    """

    def stored_tensors(self, state: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`Backbone.stored_tensors`."""
        stored = {}
        for name, tensor in state.items():
            layer, experts, kind = name.partition(".experts.")
            if not experts:
                stored[name] = tensor
                continue
            parts = tensor.chunk(2, dim=1) if kind == "gate_up_proj" else [tensor]
            for part, stacked in zip(kind.replace("gate_up", "gate_proj up").split(), parts, strict=True):
                for number, one in enumerate(stacked):
                    stored[f"{layer}.experts.{number}.{part}.weight"] = one.clone()  # not a part of another tensor
        return stored

    def fused_tensors(self, stored: dict[str, Any]) -> dict[str, Any]:
        """See :meth:`Backbone.fused_tensors`."""
        import torch

        def stack(layer: str, part: str) -> Any:
            count = int(self.model.config.num_experts)
            return torch.stack([stored[f"{layer}.experts.{number}.{part}.weight"] for number in range(count)])

        fused = {name: tensor for name, tensor in stored.items() if ".experts." not in name}
        for layer in sorted({name.partition(".experts.")[0] for name in stored.keys() - fused.keys()}):
            fused[f"{layer}.experts.gate_up_proj"] = torch.cat([stack(layer, "gate_proj"), stack(layer, "up_proj")], 1)
            fused[f"{layer}.experts.down_proj"] = stack(layer, "down_proj")
        return fused


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of the base in ``folder``, as transformers' Qwen3MoeConfig."""
    from transformers import Qwen3MoeConfig

    path = folder / "config.json"
    raw = read_json(path, error=ConfigError)
    check_family(folder, raw, "llada_moe")
    refuse(folder, raw, _FIXED)
    missing = [key for key in _KEYS.values() if raw.get(key) is None]
    if missing:
        raise ConfigError(f"{path}: LLaDA-MoE's key {missing[0]!r} is missing.")
    dense = _dense_layers(raw, path)
    if dense and raw.get("dense_intermediate_size") is None:
        raise ConfigError(f"{path}: LLaDA-MoE's key 'dense_intermediate_size' is missing.")
    with readable_config(folder):
        values: dict[str, Any] = {ours: raw[theirs] for ours, theirs in _KEYS.items()}
        values |= {key: raw[key] for key in _OPTIONAL if raw.get(key) is not None}
        # No pad_token_id: transformers would not train that row of the embeddings.
        values |= {
            "intermediate_size": raw.get("dense_intermediate_size") or raw["expert_intermediate_size"],
            "head_dim": raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
            "mlp_only_layers": dense,
            "use_sliding_window": False,
            "tie_word_embeddings": False,
        }
        config = Qwen3MoeConfig(**values)
    config.is_causal, config.use_cache = False, False  # a layer's keys and values are used only once
    return config


def _dense_layers(raw: dict[str, Any], path: Path) -> list[int]:
    """Numbers of the layers without experts: those with a 0 in ``moe_layer_freq``."""
    layers = raw["num_hidden_layers"]
    each = raw.get("moe_layer_freq")
    if each in (None, 1):
        return []
    if not isinstance(each, list) or len(each) != layers or not all(one in (0, 1) for one in each):
        raise ConfigError(
            f"{path}: moe_layer_freq={each!r:.60} is not supported (only a list of 0 and 1 per layer is)."
        )
    return [i for i, one in enumerate(each) if one == 0]


def load(folder: Path, dtype: Any, head_may_miss: bool = False) -> LladaMoeBackbone:
    """The base in ``folder`` with its weights in ``dtype``, on the CPU; with ``head_may_miss`` it may lack its head."""
    from transformers import Qwen3MoeForCausalLM

    config: Any = read_config(folder)
    width, hidden = config.moe_intermediate_size, config.hidden_size
    shapes = {"gate": (width, hidden), "up": (width, hidden), "down": (hidden, width)}
    experts = {
        f"model.layers.{layer}.mlp.experts.{number}.{part}_proj.weight": shape
        for layer in range(config.num_hidden_layers)
        if layer not in config.mlp_only_layers
        for number in range(config.num_experts)
        for part, shape in shapes.items()
    }
    check_stored(folder, experts)
    model, info = load_weights(Qwen3MoeForCausalLM, folder, config=config, dtype=dtype)
    return LladaMoeBackbone(model).loaded(info, folder, head_may_miss)


adapter_key = decoder_path
released_names = equal_names
