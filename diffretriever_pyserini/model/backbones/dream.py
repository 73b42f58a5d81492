"""Dream: Qwen2's architecture with full attention (checkpoints of Dream-v0, model_type ``Dream``)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...files.atomic import read_json
from .base import Backbone, check_family, decoder_path, equal_names, load_weights, readable_config, refuse
from .facts import ReleaseFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Keys of config.json with the same meaning in Qwen2Config.
# fmt: off
_SAME = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps",
    "rope_theta", "rope_scaling", "tie_word_embeddings", "attention_dropout", "bos_token_id", "eos_token_id",
    "pad_token_id",
)
# fmt: on
_REQUIRED = [*_SAME[:6], "rms_norm_eps", "rope_theta"]


RELEASE = ReleaseFacts(
    model_type="dream",
    task_type="FEATURE_EXTRACTION",
    budgets=(4, 16),
    max_length=156,
    targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
)


class DreamBackbone(Backbone):
    """Qwen2ForCausalLM run bidirectionally, without the shift by one in Dream's sampler (docs/method.md §3)."""


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of the base in ``folder``, as transformers' Qwen2Config."""
    from transformers import Qwen2Config

    raw = read_json(folder / "config.json", error=ConfigError)
    check_family(folder, raw, "dream")
    refuse(folder, raw, {"use_sliding_window": (False, None), "use_mrope": (False, None)})
    missing = [key for key in _REQUIRED if raw.get(key) is None]
    if missing:  # Qwen2Config would fill in the sizes of a 7B model
        raise ConfigError(f"{folder / 'config.json'}: Dream's key {missing[0]!r} is missing.")
    with readable_config(folder):
        config = Qwen2Config(**{key: raw[key] for key in _SAME if raw.get(key) is not None})
    config.is_causal, config.use_cache = False, False  # a layer's keys and values are used only once
    return config


def load(folder: Path, dtype: Any, head_may_miss: bool = False) -> DreamBackbone:
    """The base in ``folder`` with its weights in ``dtype``, on the CPU; with ``head_may_miss`` it may lack its head."""
    from transformers import Qwen2ForCausalLM

    model, info = load_weights(Qwen2ForCausalLM, folder, config=read_config(folder), dtype=dtype)
    return DreamBackbone(model).loaded(info, folder, head_may_miss)


adapter_key = decoder_path
released_names = equal_names
