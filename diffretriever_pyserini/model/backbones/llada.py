"""LLaDA: Llama's architecture with full attention under other parameter names (LLaDA-8B-Instruct, LLaDA-1.5)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...files.atomic import read_json
from .base import Backbone, check_family, load_weights, readable_config, refuse
from .facts import ReleaseFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# A name in the checkpoint -> the same weight in LlamaForCausalLM; first within blocks, then at the level of the model.
_RENAMES = {
    r"^model\.transformer\.blocks\.(\d+)\.attn_out\b": r"model.layers.\1.self_attn.o_proj",
    r"^model\.transformer\.blocks\.(\d+)\.q_proj\b": r"model.layers.\1.self_attn.q_proj",
    r"^model\.transformer\.blocks\.(\d+)\.k_proj\b": r"model.layers.\1.self_attn.k_proj",
    r"^model\.transformer\.blocks\.(\d+)\.v_proj\b": r"model.layers.\1.self_attn.v_proj",
    r"^model\.transformer\.blocks\.(\d+)\.ff_proj\b": r"model.layers.\1.mlp.gate_proj",
    r"^model\.transformer\.blocks\.(\d+)\.up_proj\b": r"model.layers.\1.mlp.up_proj",
    r"^model\.transformer\.blocks\.(\d+)\.ff_out\b": r"model.layers.\1.mlp.down_proj",
    r"^model\.transformer\.blocks\.(\d+)\.attn_norm\b": r"model.layers.\1.input_layernorm",
    r"^model\.transformer\.blocks\.(\d+)\.ff_norm\b": r"model.layers.\1.post_attention_layernorm",
    r"^model\.transformer\.wte\b": "model.embed_tokens",
    r"^model\.transformer\.ln_f\b": "model.norm",
    r"^model\.transformer\.ff_out\b": "lm_head",
}
# Settings of LLaDA's code that change the arithmetic; all published checkpoints have these values.
_FIXED: dict[str, tuple[Any, ...]] = {
    "block_type": ("llama",),
    "activation_type": ("silu",),
    "layer_norm_type": ("rms",),
    "rope": (True,),
    "alibi": (False,),
    "attention_layer_norm": (False,),
    "input_emb_norm": (False,),
    "scale_logits": (False,),
    "include_bias": (False,),
    "include_qkv_bias": (False,),
    "bias_for_layer_norm": (False, None),
    "weight_tying": (False,),
    "clip_qkv": (None,),
}


RELEASE = ReleaseFacts(
    model_type="llada1",
    task_type="CAUSAL_LM",
    budgets=(4, 4),
    max_length=156,
    # ff_out is the name of a layer of the blocks and of the output head.
    targets=("q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj", "ff_out"),
    adapts_head=True,
)


class LladaBackbone(Backbone):
    """LlamaForCausalLM run bidirectionally; padding is masked, as in LLaDA's hub code since its batch update."""


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of the base in ``folder``, as transformers' LlamaConfig."""
    from transformers import LlamaConfig

    raw = read_json(folder / "config.json", error=ConfigError)
    check_family(folder, raw, "llada")
    refuse(folder, raw, _FIXED)
    try:
        with readable_config(folder, besides=(KeyError,)):
            config = LlamaConfig(
                vocab_size=raw.get("embedding_size") or raw["vocab_size"],
                hidden_size=raw["d_model"],
                intermediate_size=raw.get("mlp_hidden_size") or raw["mlp_ratio"] * raw["d_model"],
                num_hidden_layers=raw["n_layers"],
                num_attention_heads=raw["n_heads"],
                num_key_value_heads=raw.get("n_kv_heads") or raw["n_heads"],
                max_position_embeddings=raw["max_sequence_length"],
                rms_norm_eps=raw.get("rms_norm_eps", 1e-5),
                rope_parameters={"rope_type": "default", "rope_theta": raw["rope_theta"]},
                eos_token_id=raw.get("eos_token_id"),
                # No pad_token_id: transformers would not train that row of the embeddings.
                tie_word_embeddings=False,
            )
    except KeyError as error:
        raise ConfigError(f"{folder / 'config.json'}: LLaDA's key {error.args[0]!r} is missing.") from error
    config.is_causal, config.use_cache = False, False  # a layer's keys and values are used only once
    return config


def load(folder: Path, dtype: Any, head_may_miss: bool = False) -> LladaBackbone:
    """The base in ``folder`` with its weights in ``dtype``, on the CPU; with ``head_may_miss`` it may lack its head."""
    from transformers import LlamaForCausalLM

    config = read_config(folder)
    model, info = load_weights(LlamaForCausalLM, folder, config=config, dtype=dtype, key_mapping=_RENAMES)
    return LladaBackbone(model).loaded(info, folder, head_may_miss)


def adapter_key(name: str) -> str:
    """Module path of a LoRA weight in LlamaForCausalLM, from its path in the released file."""
    if name.startswith("transformer."):
        name = f"model.{name}"
    for pattern, replacement in _RENAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def released_names(layers: int) -> dict[str, str]:
    """From module paths in LlamaForCausalLM to names in a released file, for a model with ``layers`` blocks."""
    blocks = (*RELEASE.targets, "attn_norm", "ff_norm")
    names = [f"model.transformer.blocks.{i}.{name}" for i in range(layers) for name in blocks]
    names += [f"model.transformer.{name}" for name in ("wte", "ln_f", "ff_out")]
    return {adapter_key(name): name for name in names}
