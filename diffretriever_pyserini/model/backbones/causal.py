"""Causal language models as transformers knows them: Qwen2, Qwen3, Llama, Mistral, Phi-3 (docs/method.md §8)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...files.atomic import read_json
from .base import Backbone, check_family, decoder_path, equal_names, load_weights, readable_config, refuse
from .facts import ReleaseFacts

if TYPE_CHECKING:
    import torch
    from transformers import Cache, PreTrainedConfig


RELEASE = ReleaseFacts(
    model_type="causal",
    task_type="CAUSAL_LM",
    budgets=(1, 1),
)


class CausalBackbone(Backbone):
    """A transformers ``...ForCausalLM``, whose attention is causal unless its config says ``is_causal=false``."""

    @property
    def is_causal(self) -> bool:
        """See :attr:`Backbone.is_causal`."""
        return bool(getattr(self.model.config, "is_causal", True))

    @property
    def can_pack(self) -> bool:
        """Not with a sliding window: packed texts attend to all their tokens."""
        return getattr(self.model.config, "sliding_window", None) is None

    def new_cache(self) -> Cache:
        """An empty cache of keys and values."""
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def last_states(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor, cache: Cache
    ) -> torch.Tensor:
        """Final-norm hidden states [B, H] of the last of the new ids [B, L], which ``cache`` then holds too.

        ``attention_mask`` [B, L_all] is that of all tokens in the cache and the new ones, padded on the left.
        """
        outputs = self.model.base_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        states: torch.Tensor = outputs.last_hidden_state[:, -1]
        return states


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of the base in ``folder``; code that it names is not run, transformers' own class is used."""
    from transformers import AutoConfig

    raw = read_json(folder / "config.json", error=ConfigError)
    check_family(folder, raw, "causal")
    refuse(folder, raw, {"transformers_weights": (None,)})  # weights in a file of another name
    with readable_config(folder):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return config


def load(folder: Path, dtype: Any, head_may_miss: bool = False) -> CausalBackbone:
    """The base in ``folder`` with its weights in ``dtype``, on the CPU; with ``head_may_miss`` it may lack its head."""
    from transformers import AutoModelForCausalLM

    config = read_config(folder)
    model, info = load_weights(AutoModelForCausalLM, folder, config=config, dtype=dtype, trust_remote_code=False)
    return CausalBackbone(model).loaded(info, folder, head_may_miss)


adapter_key = decoder_path
released_names = equal_names
