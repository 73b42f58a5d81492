"""The words of the prompts (docs/method.md §2)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .config import check_side

SYSTEM = "You are an AI assistant that can understand human language."
_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDING = {  # variant: what the prompt asks for, the noun, its verb, a further request
    "one": ("one word", "word", "is", ""),
    "three": ("three words", "words", "are", " and split them by space"),
    "few": ("a few words", "words", "are", ""),
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """The words of one prompt: the system turn and what precedes and follows the text."""

    system: str
    user_prefix: str
    user_suffix: str
    assistant_prefix: str


def prompt_for(side: str, k: int, variant: str = "auto") -> Prompt:
    """The prompt of ``side`` for K = ``k``: ``one`` and ``three`` name K, ``few`` does not (docs/method.md §2).

    ``auto`` is ``one`` for K = 1 and ``few`` for larger K.
    """
    check_side(side)
    if variant == "auto":
        variant = "one" if k == 1 else "few"
    request, noun, is_, also = _WORDING[variant]
    prompt = Prompt(
        system=SYSTEM,
        user_prefix=f'{side.capitalize()}: "',
        user_suffix=f'". Use {request} to represent the {side} in a retrieval task. '
        f"Make sure your {noun} {is_} in lowercase{also}.",
        assistant_prefix=f'The {noun} {is_}: "',
    )
    return prompt if variant == "few" else count_words(prompt, k)


def count_words(prompt: Prompt, k: int) -> Prompt:
    """Rewrite "one word" to K words ("four words", digits above ten); a prompt without a number is not changed."""
    if k == 1:
        return prompt
    number = _NUMBERS[k - 1] if k <= len(_NUMBERS) else str(k)

    def rewrite(text: str) -> str:
        text = re.sub(rf"\b(?:{'|'.join(_NUMBERS)}) words?\b", f"{number} words", text)
        return re.sub(r"\bword is\b", "words are", text)

    return Prompt(prompt.system, prompt.user_prefix, rewrite(prompt.user_suffix), rewrite(prompt.assistant_prefix))
