"""What is known of a family: how its tokenizer is used, and what its released checkpoints look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ChatFacts:
    """How a family's tokenizer and chat template are used.

    Attributes
    ----------
    masks : names of the mask, for a tokenizer that does not say which token it is.
    adds_mask : whether the first of ``masks`` is added to a tokenizer that has none of them.
    mask_id : id of the mask if the tokenizer has none of ``masks``.
    ends_of_turn : tokens that may end a turn; the first in the vocabulary that is not the end of text is used.
    arguments : for the chat template, as (name, value).
    """

    masks: tuple[str, ...] = ()
    adds_mask: bool = False
    mask_id: int | None = None
    ends_of_turn: tuple[str, ...] = ("<|im_end|>", "<|eot_id|>")
    arguments: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class ReleaseFacts:
    """Facts about a family for training and its checkpoints.

    Attributes
    ----------
    model_type : in retriever_config.json.
    task_type : in adapter_config.json.
    budgets : default K_q and K_p for a bare base, as selected in the paper (docs/method.md §7).
    max_length : default for a bare base; None is the family's own.
    targets : layer names as released adapters list them; empty for every name after the number of the layer.
    adapts_head : whether LoRA adapts the output head, too.
    chat : how its tokenizer and chat template are used.
    """

    model_type: str
    task_type: str
    budgets: tuple[int, int]
    max_length: int | None = None
    targets: tuple[str, ...] = ()
    adapts_head: bool = False
    chat: ChatFacts = ChatFacts()
