"""Masked language models of the BERT family, with the layout ``[CLS] text [SEP] MASK x K [SEP]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from ...files.atomic import read_json
from .base import Backbone, check_family, equal_names, load_weights, readable_config, refuse
from .facts import ReleaseFacts
from .packing import Packing, run_packed

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

NOT_LOADED = ("pooler", "position_ids", "seq_relationship")  # in names of tensors that we do not load


RELEASE = ReleaseFacts(model_type="masked_lm", task_type="FEATURE_EXTRACTION", budgets=(4, 4))


class MaskedLmBackbone(Backbone):
    """A transformers ``...ForMaskedLM``; its head (transform, norm, decoder) runs on the K rows only."""

    pad_left = False

    def __init__(self, model: PreTrainedModel, mask_position_ids: str = "follow", mask_token_type: int = 0):
        super().__init__(model)
        self._transform = _head_transform(model)
        self._tail_positions = mask_position_ids == "tail"
        self._mask_type = mask_token_type
        if (self._tail_positions or mask_token_type) and model.config.model_type != "bert":
            raise ConfigError("mask_position_ids='tail' and mask_token_type=1 are for BERT models only.")

    @property
    def max_positions(self) -> int | None:
        """See :meth:`Backbone.max_positions`; RoBERTa's positions begin after the padding id."""
        if self.model.config.model_type == "modernbert":
            return None
        return int(self.model.config.max_position_embeddings) - self._first_position

    @property
    def _first_position(self) -> int:
        config = self.model.config
        return int(config.pad_token_id) + 1 if config.model_type in ("roberta", "xlm-roberta") else 0

    def hidden_states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, block: int) -> torch.Tensor:
        """See :meth:`Backbone.hidden_states`; the mask block has its own positions and segment if configured."""
        extra: dict[str, Any] = {}
        if self._first_position:  # RoBERTa would give a padding token within the text no position
            running = attention_mask.cumsum(dim=1) * attention_mask
            extra["position_ids"] = running + self._first_position - 1
        if self._tail_positions or self._mask_type:
            extra = self._block_ids(attention_mask, block)
        return self.model.base_model(input_ids=input_ids, attention_mask=attention_mask, **extra).last_hidden_state

    @property
    def can_pack(self) -> bool:
        """ModernBERT cannot: its local attention sees a window of one text, and a packed row has several."""
        return self.model.config.model_type != "modernbert"

    def packed_states(self, input_ids: torch.Tensor, packing: Packing, block: int) -> torch.Tensor:
        """See :meth:`Backbone.packed_states`; the mask block as in :meth:`hidden_states`."""
        import torch

        in_block, positions = packing.remaining <= block, packing.positions + self._first_position
        if self._tail_positions:
            last = self.model.config.max_position_embeddings
            positions = torch.where(in_block, last - packing.remaining, positions)
        inputs = {"position_ids": positions}
        if self.model.config.model_type != "distilbert":  # which has no segments
            inputs["token_type_ids"] = in_block.long() * self._mask_type
        return run_packed(self.model, input_ids, packing, **inputs)

    def _block_ids(self, attention_mask: torch.Tensor, block: int) -> dict[str, torch.Tensor]:
        """Segment and position ids [B, L]; the positions of the block may be the last ones of the position table."""
        import torch

        length = attention_mask.sum(dim=1, keepdim=True)
        position = torch.arange(attention_mask.shape[1], device=attention_mask.device).expand_as(attention_mask)
        in_block = (position >= length - block) & (position < length)
        ids = {"token_type_ids": in_block.long() * self._mask_type}
        if self._tail_positions:
            last = self.model.config.max_position_embeddings
            ids["position_ids"] = torch.where(in_block, position - length + last, position)
        return ids

    def head_input(self, rows: torch.Tensor) -> torch.Tensor:
        """See :meth:`Backbone.head_input`."""
        return self._transform(rows)


def _head_transform(model: Any) -> Any:
    """The function from hidden states to the input of the head's decoder, for each type of model."""
    from torch.nn import functional

    kind = model.config.model_type
    if kind == "bert":
        return model.cls.predictions.transform
    if kind in ("roberta", "xlm-roberta"):
        head = model.lm_head
        return lambda rows: head.layer_norm(functional.gelu(head.dense(rows)))
    if kind == "modernbert":
        return model.head
    if kind == "distilbert":
        return lambda rows: model.vocab_layer_norm(model.activation(model.vocab_transform(rows)))
    raise ConfigError(f"masked language models of type {kind!r} are not supported.")


def read_config(folder: Path) -> PreTrainedConfig:
    """The configuration of the base in ``folder``."""
    from transformers import AutoConfig

    raw = read_json(folder / "config.json", error=ConfigError)
    check_family(folder, raw, "masked_lm")
    if "auto_map" in raw:
        raise ConfigError(f"{folder}: this masked language model needs its own code (auto_map), which is never run.")
    refuse(folder, raw, {"transformers_weights": (None,)})  # weights in a file of another name
    with readable_config(folder):
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    return config


def load(
    folder: Path, dtype: Any, head_may_miss: bool = False, mask_position_ids: str = "follow", mask_token_type: int = 0
) -> MaskedLmBackbone:
    """The base in ``folder``; with ``head_may_miss`` the head may be absent (an adapter has it, or it is not read)."""
    from transformers import AutoModelForMaskedLM

    config = read_config(folder)
    model, info = load_weights(AutoModelForMaskedLM, folder, config=config, dtype=dtype, trust_remote_code=False)
    info["unexpected_keys"] = [key for key in info["unexpected_keys"] if not any(name in key for name in NOT_LOADED)]
    return MaskedLmBackbone(model, mask_position_ids, mask_token_type).loaded(info, folder, head_may_miss)


def adapter_key(name: str) -> str:
    """Module path of a LoRA weight in the ``...ForMaskedLM`` class, from its path in the file."""
    return name


released_names = equal_names
