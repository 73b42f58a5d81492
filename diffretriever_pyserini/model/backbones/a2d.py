"""A2D: Qwen3, Qwen2 or Llama with full attention, trained on masks by dllm (``a2d-qwen3``, ``-qwen2``, ``-llama``)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...files.atomic import read_json
from .base import Backbone, check_family, decoder_path, equal_names, load_weights, readable_config, refuse
from .facts import ChatFacts, ReleaseFacts

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

logger = logging.getLogger(__name__)
_CLASSES = {"a2d-qwen3": "Qwen3", "a2d-qwen2": "Qwen2", "a2d-llama": "Llama"}
# Keys of config.json that transformers' class must not get: names of other classes and code, what loading decides, and
# the padding id, because transformers would not train that row of the embeddings.
_LEFT_OUT = {"model_type", "architectures", "auto_map", "dtype", "torch_dtype", "transformers_version", "pad_token_id"}
_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "rms_norm_eps",
)
_UNEQUAL_HEAD = (
    "The file has an output head that differs from the input embeddings, but its config.json ties the two, as the "
    "model was trained. The embeddings are used."
)

RELEASE = ReleaseFacts(
    model_type="a2d",
    task_type="FEATURE_EXTRACTION",
    budgets=(4, 4),
    max_length=156,
    targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    chat=ChatFacts(masks=("<|mask|>", "<|MASK|>"), adds_mask=True, arguments=(("enable_thinking", False),)),
)


class A2DBackbone(Backbone):
    """Qwen3ForCausalLM, Qwen2ForCausalLM or LlamaForCausalLM, run bidirectionally and without a shift."""


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of the base in ``folder``, as that of transformers' class."""
    import transformers

    path = folder / "config.json"
    raw = read_json(path, error=ConfigError)
    check_family(folder, raw, "a2d")
    kind = _CLASSES.get(str(raw["model_type"]).lower())
    if kind is None:
        raise ConfigError(f"{path}: model_type {raw['model_type']!r} names no class; use one of {', '.join(_CLASSES)}.")
    refuse(folder, raw, {"use_sliding_window": (False, None), "quantization_config": (None,)})
    other = set(raw.get("layer_types") or ()) - {"full_attention"}
    if other:
        raise ConfigError(f"{path}: layer_types with {min(other)!r} is not supported (only 'full_attention' is).")
    missing = [key for key in _REQUIRED if raw.get(key) is None]
    if raw.get("rope_theta") is None and not raw.get("rope_parameters"):
        missing.append("rope_theta")
    if missing:  # transformers would fill in the sizes of another model
        raise ConfigError(f"{path}: the key {missing[0]!r} is missing.")
    with readable_config(folder):
        values = {key: value for key, value in raw.items() if key not in _LEFT_OUT}
        config: PreTrainedConfig = getattr(transformers, f"{kind}Config")(**values)
    config.is_causal, config.use_cache = False, False  # a layer's keys and values are used only once
    return config


def load(folder: Path, dtype: Any, head_may_miss: bool = False) -> A2DBackbone:
    """The base in ``folder`` with its weights in ``dtype``, on the CPU; with ``head_may_miss`` it may lack its head."""
    import transformers

    config = read_config(folder)
    architecture = getattr(transformers, type(config).__name__.replace("Config", "ForCausalLM"))
    model, info = load_weights(architecture, folder, config=config, dtype=dtype)
    backbone = A2DBackbone(model).loaded(info, folder, head_may_miss)
    if config.tie_word_embeddings and not backbone.is_tied:  # transformers 5 keeps a stored head that differs
        model.get_output_embeddings().weight = model.get_input_embeddings().weight
        backbone.notes = (_UNEQUAL_HEAD,)
        logger.warning("%s: %s", folder, _UNEQUAL_HEAD)
    return backbone


adapter_key = decoder_path
released_names = equal_names
