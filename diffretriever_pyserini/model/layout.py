"""From text to the token layout ``prefix | text | suffix | MASK x K | tail`` (docs/method.md §2).

The prompt asks for a few words, the masks take their positions, and the tail closes the assistant's turn. So the model
sees a finished answer with K blanks. Every id outside the text is fixed per side, so a layout is built once. Other
read-outs than *mask* have neither masks nor tail (§8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError, reason
from ..text import clean_text
from .backbones.facts import ChatFacts
from .backbones.loading import family_module
from .config import RetrieverConfig
from .prompts import Prompt, prompt_for
from .readouts import has_terms

_SENTINEL = "\u241etext\u241e"  # replaces the text while the chat template is rendered
_CLIP_MARGIN = 128  # tokens that may change if a word is cut: WordPiece makes up to 100 of half an unknown word
_CHAT = ChatFacts()
_MAX_CHARACTERS = 1 << 18  # a word of ten million characters would take half a minute


@dataclass(frozen=True, slots=True)
class Layout:
    """Every token id of one side, except those of the text.

    A sequence is ``prefix + text + suffix + [mask_id] * k + tail`` and has at most ``max_length + k + len(tail)``
    tokens. The masks are at the positions ``[-k - len(tail), -len(tail))``. Without a ``mask_id`` there are no masks.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    tail: tuple[int, ...]
    k: int
    mask_id: int | None
    pad_id: int
    max_length: int

    @property
    def text_budget(self) -> int:
        """Tokens left for the text."""
        return self.max_length - len(self.prefix) - len(self.suffix)

    @property
    def masks(self) -> tuple[int, ...]:
        """The K masks; empty for a read-out without masks."""
        return () if self.mask_id is None else (self.mask_id,) * self.k

    @property
    def block(self) -> int:
        """Tokens from the first mask to the end."""
        return len(self.masks) + len(self.tail)

    def lengths(self, texts: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
        """int64 [N]: tokens of each whole sequence; ``texts`` are the ids of each text alone, within the budget."""
        fixed = len(self.assemble(()))
        return np.array([fixed + len(text) for text in texts], dtype=np.int64)

    def assemble(self, text_ids: Sequence[int]) -> list[int]:
        """The whole sequence for one text's ids, which are cut to the budget."""
        return [*self.prefix, *text_ids[: self.text_budget], *self.suffix, *self.masks, *self.tail]

    def shortened(self, max_length: int | None, what: str) -> Layout:
        """The same layout with at most ``max_length`` tokens (None: unchanged); raises ConfigError if no text fits."""
        from dataclasses import replace

        layout = self if max_length is None else replace(self, max_length=min(self.max_length, max_length))
        if layout.text_budget < 1:
            needed = len(self.prefix) + len(self.suffix)
            raise ConfigError(
                f"{what}: max_length={layout.max_length} leaves no token for the text, because the prompt alone has "
                f"{needed} tokens. Use a max_length of at least {needed + 1}."
            )
        return layout


@dataclass(frozen=True, slots=True)
class TokenTable:
    """Offsets of N sequences in one table of token ids: packed one after another, or padded to N rows of equal width.

    Attributes
    ----------
    starts, lengths : int64 [N], offset of each sequence in the flat table, and its number of tokens.
    shape : (T,) packed, or (N, L) padded.
    """

    starts: np.ndarray
    lengths: np.ndarray
    shape: tuple[int, ...]

    @classmethod
    def packed(cls, lengths: np.ndarray) -> TokenTable:
        """Sequences of ``lengths`` int64 [N], one after another."""
        return cls(np.cumsum(lengths) - lengths, lengths, (int(lengths.sum()),))

    @classmethod
    def padded(cls, lengths: np.ndarray, left: bool) -> TokenTable:
        """One row per sequence, padded on the ``left`` or on the right."""
        width = int(lengths.max())
        before = width - lengths if left else np.zeros_like(lengths)
        return cls(before + width * np.arange(len(lengths)), lengths, (len(lengths), width))

    @property
    def size(self) -> int:
        """Tokens of the whole table, including padding."""
        return math.prod(self.shape)

    def mask(self) -> np.ndarray:
        """int64 in the table's shape: 1 for tokens, 0 for padding."""
        # +1 where a sequence begins, -1 after its end, which for the last one is the end of the table.
        edges = np.zeros(self.size + 1, dtype=np.int64)
        np.add.at(edges, self.starts, 1)
        np.add.at(edges, self.starts + self.lengths, -1)
        return edges[:-1].cumsum().reshape(self.shape)

    def ids(self, layout: Layout, texts: Sequence[Sequence[int] | np.ndarray]) -> np.ndarray:
        """Token ids int64 in the table's shape; ``texts`` are the ids of each text alone."""
        table = np.full(self.size, layout.pad_id, dtype=np.int64)
        fixed = layout.assemble(())
        before, after = len(layout.prefix), len(fixed) - len(layout.prefix)
        for start, end, text in zip(self.starts.tolist(), (self.starts + self.lengths).tolist(), texts, strict=True):
            table[start : start + before], table[end - after : end] = layout.prefix, fixed[before:]
            table[start + before : end - after] = text
        return table.reshape(self.shape)

    def mask_positions(self, layout: Layout) -> np.ndarray:
        """int64 [N, K]: offsets of the K masks of each sequence in the flat table."""
        return (self.starts + self.lengths - layout.block)[:, None] + np.arange(layout.k)


def build_layout(config: RetrieverConfig, tokenizer: Any, side: str) -> Layout:
    """The layout of ``side``; raises ConfigError if the checkpoint has no mask token or the prompt fills max_length."""
    masked = config.readout == "mask"
    chat = family_module(config.family).RELEASE.chat
    known = (config.mask_token_id, tokenizer.mask_token_id, chat.mask_id)
    mask_id = next((one for one in known if one is not None), None)
    if masked and mask_id is None:
        raise ConfigError(f"{config.name}: no mask token in the checkpoint or its tokenizer; set mask_token_id.")
    fixed = config.fixed_ids(side)
    prompted = has_terms(config.readout) and _is_prompted(config, tokenizer, fixed is not None)
    prefix, suffix = fixed or _around_text(config, tokenizer, side, prompted)
    tail: list[int] = []
    if masked and not prompted:
        tail = [_special_id(tokenizer, "sep_token", config.name)]
    elif masked:
        tail = tail_ids(tokenizer, config.n_tail, chat)
        if None in tail:
            _special_id(tokenizer, "eos_token", config.name)
    layout = Layout(
        prefix=tuple(prefix),
        suffix=tuple(suffix),
        tail=tuple(tail),
        k=config.k(side),
        mask_id=int(mask_id) if masked and mask_id is not None else None,
        pad_id=_pad_id(tokenizer),
        max_length=config.length(side),
    )
    return layout.shortened(None, f"{config.name}, {side} side")


def _is_prompted(config: RetrieverConfig, tokenizer: Any, fixed: bool) -> bool:
    """Whether the text is in a chat prompt: always, except in a masked LM without chat template or prompt."""
    if config.family != "masked_lm":
        if config.prompt == "none" and not fixed:
            raise ConfigError(
                f"{config.name}: prompt='none' is for masked language models; {config.family} needs a prompt."
            )
        return True
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if config.prompt not in ("auto", "none") and not has_template and not fixed:
        raise ConfigError(
            f"{config.name}: a masked language model without a chat template has no prompt {config.prompt!r}; give "
            "prefix and suffix ids."
        )
    return config.prompt != "none" and has_template


def _around_text(
    config: RetrieverConfig, tokenizer: Any, side: str, prompted: bool
) -> tuple[Sequence[int], Sequence[int]]:
    """The ids before and after a text of ``side``: of the prompt, or the tokenizer's own where there is none."""
    if prompted:
        chat = family_module(config.family).RELEASE.chat
        return chat_ids(tokenizer, prompt_for(side, config.k(side), config.prompt), config.name, chat)
    if has_terms(config.readout):
        return [_special_id(tokenizer, "cls_token", config.name)], [_special_id(tokenizer, "sep_token", config.name)]
    prefix, suffix = own_ids(tokenizer, config.name)
    if config.ends_with_eos and suffix[-1:] != [eos := _special_id(tokenizer, "eos_token", config.name)]:
        suffix = [*suffix, eos]
    return prefix, suffix


def own_ids(tokenizer: Any, name: str) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer itself puts before and after a text, such as BERT's or Llama's first."""
    alone, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    for start in range(len(whole) - len(alone) + 1):
        if whole[start : start + len(alone)] == alone:
            return whole[:start], whole[start + len(alone) :]
    raise ConfigError(f"{name}: its tokenizer changes a text when it adds special tokens; set prefix and suffix ids.")


def chat_ids(tokenizer: Any, prompt: Prompt, name: str, chat: ChatFacts = _CHAT) -> tuple[list[int], list[int]]:
    """Prefix and suffix ids: the rendered chat template before and after the text, each tokenised separately."""
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(f"{name}: its tokenizer has no chat template; set prompt ids or use an Instruct checkpoint.")
    try:
        text = _rendered(tokenizer, prompt, chat)
    except Exception as error:  # a template is a program and can raise anything
        raise ConfigError(
            f"{name}: the chat template of its tokenizer is broken ({reason(error)}); "
            "correct it in chat_template.jinja or tokenizer_config.json, or set prompt ids."
        ) from error
    before, sentinel, after = text.partition(_SENTINEL)
    if not sentinel:
        raise ConfigError(
            f"{name}: the chat template drops or changes the user's message; correct it or set prompt ids."
        )
    halves = (before, after + prompt.assistant_prefix)
    options = {"add_special_tokens": False, "split_special_tokens": False}  # those of the template are control tokens
    prefix, suffix = (tokenizer(half, **options)["input_ids"] for half in halves)
    return prefix, suffix


def _rendered(tokenizer: Any, prompt: Prompt, chat: ChatFacts) -> str:
    """The rendered chat around a sentinel; a template without a system turn (Mistral's) gets its text in the user's."""
    user = {"role": "user", "content": prompt.user_prefix + _SENTINEL + prompt.user_suffix}
    joined = {"role": "user", "content": f"{prompt.system} {user['content']}"}  # as in PromptReps's prompt for Mistral
    options = {"tokenize": False, "add_generation_prompt": True} | dict(chat.arguments)
    try:
        text = tokenizer.apply_chat_template([{"role": "system", "content": prompt.system}, user], **options)
    except Exception:  # a template is a program and can raise anything
        text = tokenizer.apply_chat_template([joined], **options)
    return str(text)


def tail_ids(tokenizer: Any, n_tail: int, chat: ChatFacts = _CHAT) -> list[int]:
    """Closing quote, end of turn, end of text; a missing one, and those after the third, are the end-of-text token.

    A tokenizer without an end of text, such as BERT's, has its separator there.
    """
    if n_tail == 0:
        return []
    eos = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    quote = tokenizer('"', add_special_tokens=False)["input_ids"]
    tail = [quote[0] if len(quote) == 1 else eos]
    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary[token] for token in chat.ends_of_turn if token in vocabulary and vocabulary[token] != eos]
    tail += ends[:1]
    return (tail + [eos] * n_tail)[:n_tail]


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of the special tokens; a special token outside the vocabulary has none."""
    return frozenset(special for special in tokenizer.all_special_ids if special is not None)


def stop_ids(tokenizer: Any, layout: Layout) -> frozenset[int]:
    """Ids that end a zero-shot answer: special tokens but the mask; without masks also a quotation mark (§4, §8.1)."""
    if layout.masks:
        return special_ids(tokenizer) - set(layout.masks)
    quotes = set(tokenizer('"', add_special_tokens=False)["input_ids"])
    if '"' in tokenizer.get_vocab():  # SentencePiece has one with and one without a space before it
        quotes.add(tokenizer.get_vocab()['"'])
    return special_ids(tokenizer) | quotes


def _special_id(tokenizer: Any, role: str, name: str) -> int:
    special = getattr(tokenizer, f"{role}_id")
    if special is None:
        raise ConfigError(f"{name}: its tokenizer has no {role}; name it in tokenizer_config.json.")
    return int(special)


def _pad_id(tokenizer: Any) -> int:
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0


def tokenize_texts(tokenizer: Any, texts: Sequence[str], budget: int) -> list[list[int]]:
    """Ids of each text alone, at most ``budget`` of them; characters that cannot matter are cut before tokenising.

    Reading stops after 262,144 characters, even if the budget is not filled (one very long word, only white space).
    """
    if len(texts) == 0:
        return []
    clip = _clip_length(budget)
    ids = _ids(tokenizer, [clean_text(text[:clip]) for text in texts])
    for i, text in enumerate(texts):
        end = clip
        # A clipped text that did not fill the budget (long tokens) is extended, four times as far each time.
        while end < min(len(text), _MAX_CHARACTERS) and len(ids[i]) < budget + _CLIP_MARGIN:
            end = min(4 * end, _MAX_CHARACTERS)
            ids[i] = _ids(tokenizer, [clean_text(text[:end])])[0]
    return [text_ids[:budget] for text_ids in ids]


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def _clip_length(budget: int) -> int:
    return 32 * budget + 1024
