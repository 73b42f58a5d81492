"""The interface of all families: hidden states after the final norm, and logits of the output head for given rows."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ...errors import ConfigError, reason
from ...files.atomic import read_json
from ..config import family_of
from .packing import ATTENTION, Packing, kernel_works, let_pack, run_packed

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel


class Backbone:
    """A transformers model with the methods that DiffRetriever needs; a subclass adapts it to its family."""

    missing_head: frozenset[str] = frozenset()  # weights of the head that the base lacks and an adapter must have
    notes: tuple[str, ...] = ()  # what the user should know about these weights, as sentences
    pad_left = True  # for rotary models; models with learned positions pad on the right

    def __init__(self, model: PreTrainedModel):
        self.model = model.eval()
        if getattr(model.config, "is_causal", None) is False:
            layers: list[Any] = [module for module in model.modules() if hasattr(module, "is_causal")]
            for layer in layers:  # some attention functions read it from the layer
                layer.is_causal = False
        self._kernels: dict[tuple[Any, ...], bool] = {}
        self.process = os.getpid()

    @property
    def is_causal(self) -> bool:
        """Whether a token attends only to itself and earlier ones."""
        return False

    @property
    def can_pack(self) -> bool:
        """Whether the architecture can read several texts packed in one row."""
        return True

    @property
    def packs(self) -> bool:
        """Whether :meth:`packed_states` may be called: after :meth:`pack`, until another attention is set."""
        return self.model.config._attn_implementation == ATTENTION

    def pack(self) -> None:
        """Enable :meth:`packed_states` if the architecture can pack; padded batches still work."""
        if self.can_pack:
            let_pack(self.model)

    @property
    def has_kernel(self) -> bool:
        """Whether torch's variable-length attention runs on the model's present device; tested once for each."""
        import torch

        key = (self.device, self.dtype, torch.is_grad_enabled())
        if key not in self._kernels:
            self._kernels[key] = kernel_works(self.model, self.is_causal)
        return self._kernels[key]

    @property
    def hidden_size(self) -> int:
        """Width H of the hidden states."""
        return int(self.model.config.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Rows V of the output head, or of the input embedding if there is no head; not the tokenizer's size."""
        head = self.model.get_output_embeddings()
        return self.input_rows if head is None else int(head.weight.shape[0])

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.model.dtype

    def hidden_states(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, block: int) -> torch.Tensor:
        """Final-norm hidden states [B, L, H] of ids [B, L]; padding (0) is masked, and nothing else unless causal.

        ``block`` is the number of masks and tail tokens at the end of each text.
        """
        return self.model.base_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def packing(self, lengths: np.ndarray) -> Packing:
        """The packing of texts with ``lengths`` int64 [B] tokens."""
        return Packing.of(lengths, self.device, self.has_kernel, self.is_causal)

    def packed_states(self, input_ids: torch.Tensor, packing: Packing, block: int) -> torch.Tensor:
        """:meth:`hidden_states` [T, H] for the ids [T] of packed texts, each of which attends only to itself."""
        return run_packed(self.model, input_ids, packing, position_ids=packing.positions)

    @property
    def max_positions(self) -> int | None:
        """Longest sequence in the position table; None for rotary models, which have no table."""
        return None

    @property
    def input_rows(self) -> int:
        """Rows of the input embedding; every token id must be smaller."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def table_name(self) -> str:
        """Module path of the input embeddings."""
        return self._name_of(self.model.get_input_embeddings())

    @property
    def head_name(self) -> str:
        """Module path of the output head's last linear layer."""
        return self._name_of(self.model.get_output_embeddings())

    def _name_of(self, target: Any) -> str:
        return next(name for name, module in self.model.named_modules() if module is target)

    @property
    def is_tied(self) -> bool:
        """Whether the output head's weight is the input embedding table."""
        return self.model.get_output_embeddings().weight is self.model.get_input_embeddings().weight

    def untie_head(self) -> None:
        """Give a tied output head its own copy of the table, so that a change of one does not change the other."""
        from torch.nn import Parameter

        if not self.is_tied:
            return
        name, head = f"{self.head_name}.weight", self.model.get_output_embeddings()
        head.weight = Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
        self.model.config.tie_word_embeddings = False
        self.model.all_tied_weights_keys.pop(name, None)

    def loaded(self, info: dict[str, Any], folder: Path, head_may_miss: bool) -> Self:
        """This backbone, after :func:`check_loaded`; with ``head_may_miss`` the base may lack its output head."""
        self.missing_head = check_loaded(info, folder, self.model if head_may_miss else None)
        return self

    def stored_tensors(self, state: dict[str, Any]) -> dict[str, Any]:
        """The tensors of a checkpoint with the weights ``state`` of the model; they differ where loading fuses some."""
        return state

    def fused_tensors(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The reverse of :meth:`stored_tensors`."""
        return stored

    def drop_head(self) -> None:
        """Free an output head that is not tied to the embeddings, for a read-out that has no logits."""
        if getattr(self.model, "lm_head", None) is not None and not self.is_tied:
            self.model.set_output_embeddings(None)

    def head_input(self, rows: torch.Tensor) -> torch.Tensor:
        """Input of the head's last linear layer for hidden states [..., H]; the BERT family transforms them."""
        return rows

    def head(self, rows: torch.Tensor) -> torch.Tensor:
        """Logits [..., V] of hidden states [..., H]; called with the K rows only, not with a whole sequence."""
        return self.model.get_output_embeddings()(self.head_input(rows))

    def head_columns(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Logits [N, K, C] of hidden states [N, K, H] for each text's own ``columns`` int64 [N, C]."""
        from torch.nn import Linear

        last = self.model.get_output_embeddings()
        if not isinstance(last, Linear):  # with an unmerged adapter, the base's weight is not enough
            return self.head_columns_of_all(rows, columns)
        logits = self.head_input(rows) @ last.weight[columns].transpose(1, 2)
        return logits if last.bias is None else logits + last.bias[columns].unsqueeze(1)

    def head_columns_of_all(self, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """:meth:`head_columns` by way of all logits, which takes less memory for very many columns."""
        return self.head(rows).gather(2, columns.unsqueeze(1).expand(-1, rows.shape[1], -1))


def load_weights(architecture: Any, folder: Path, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    """The model from ``architecture.from_pretrained``, safetensors only, and transformers' report on its keys.

    Raises ConfigError if the weights are absent, damaged or of other shapes than config.json says, or if transformers
    cannot make a model from config.json.
    """
    from safetensors import SafetensorError

    if (folder / "adapter_config.json").is_file():  # transformers would merge it by itself
        raise ConfigError(f"{folder}: this base has an adapter in its folder (adapter_config.json); move it elsewhere.")
    try:
        with quiet_loading(), readable_config(folder, besides=(OSError, RuntimeError, SafetensorError)):
            model, info = architecture.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True, **arguments
            )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ConfigError(f"{folder}: the weights cannot be loaded (safetensors only): {reason(error)}.") from error
    _check_shapes(folder, info["mismatched_keys"])
    return model, info | {"missing_keys": set(info["missing_keys"]) - set(model.all_tied_weights_keys)}


@contextmanager
def readable_config(folder: Path, besides: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn errors that transformers raises for a value in config.json into ConfigError, except those in ``besides``."""
    try:
        yield
    except Exception as error:  # KeyError, TypeError, AssertionError, huggingface_hub's own ...
        if isinstance(error, (ConfigError, *besides)):
            raise
        path = folder / "config.json"
        raise ConfigError(f"{path}: transformers cannot make a model from it ({reason(error)}).") from error


def weight_files(folder: Path) -> list[Path]:
    """The files that :func:`load_weights` reads in ``folder``: one file, or the shards that an index names.

    Raises ConfigError if there are none.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        raise ConfigError(f"{folder}: the weights cannot be loaded (safetensors only): there is no model.safetensors.")
    shards = read_json(index, error=ConfigError).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ConfigError(f"{index}: no weight_map, which names the file of every weight.")
    return sorted({folder / str(name) for name in shards.values()})


def check_stored(folder: Path, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ConfigError if the weight files in ``folder`` lack a tensor in ``expected`` or have it in another shape.

    For tensors that transformers fuses while loading: there it only says that something failed.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, "pt") as file:
                shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path}: the weights cannot be loaded (safetensors only): {reason(error)}.") from error
    check_loaded({"missing_keys": expected.keys() - shapes.keys()}, folder)
    _check_shapes(folder, [(key, shapes[key], shape) for key, shape in expected.items() if shapes[key] != shape])


def _check_shapes(folder: Path, misfits: Iterable[tuple[str, Any, Any]]) -> None:
    """Raise ConfigError for the first of ``misfits``: name, stored and expected shape."""
    ordered = sorted(misfits)
    for key, stored, expected in ordered:
        raise ConfigError(
            f"{folder}: the weights do not fit its config.json: {key} has shape {tuple(stored)}, and config.json asks "
            f"for {tuple(expected)} ({len(ordered)} such tensors in all)."
        )


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Suppress the report on missing keys, which we check, and the progress bar unless stderr is a terminal."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # peft uses a property of transformers that has been renamed.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def check_family(folder: Path, raw: dict[str, Any], family: str) -> None:
    """Raise ConfigError if the base in ``folder`` is not of the ``family`` of its configuration or adapter."""
    actual = family_of(raw, folder / "config.json")
    if actual != family:
        raise ConfigError(f"{folder}: this base is a {actual} model, but the configuration or adapter is for {family}.")


def check_loaded(info: dict[str, Any], folder: Path, headless: Any = None) -> frozenset[str]:
    """Raise ConfigError if a checkpoint lacked weights or had some that the architecture does not know.

    ``headless`` is the model if its output head may be missing; the weights of the head that are missing are returned.
    """
    missing = {str(key) for key in info["missing_keys"]}
    of_head: frozenset[str] = frozenset()
    if headless is not None:
        of_head = frozenset(key for key in missing if not key.startswith(f"{headless.base_model_prefix}."))
    for problem, keys in (
        ("lacks", sorted(missing - of_head)),
        ("has unknown", sorted(info.get("unexpected_keys", ()))),
    ):
        if keys:
            raise ConfigError(f"{folder}: the checkpoint {problem} weights {', '.join(keys[:3])} ({len(keys)} in all).")
    return of_head


def refuse(folder: Path, raw: dict[str, Any], expected: dict[str, tuple[Any, ...]]) -> None:
    """Raise ConfigError for unsupported settings of a config.json that change the arithmetic."""
    for key, allowed in expected.items():
        if key in raw and raw[key] not in allowed:
            raise ConfigError(
                f"{folder / 'config.json'}: {key}={raw[key]!r} is not supported (only {allowed[0]!r} is)."
            )


def decoder_path(name: str) -> str:
    """Module path of a LoRA weight in a decoder of transformers, from its path in a file that has the same names."""
    return name if name.startswith(("model.", "lm_head")) else f"model.{name}"


def equal_names(layers: int) -> dict[str, str]:
    """From module paths in the model to names in a released file; empty, because they are equal."""
    return {}
