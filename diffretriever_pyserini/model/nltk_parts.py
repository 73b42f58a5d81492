"""NLTK's word tokenizer and Porter stemmer without the rest of NLTK.

`import nltk` imports scipy.stats, scikit-learn and pandas, which takes two seconds or more in every process that reads
texts. Both modules need nothing of it, so they are imported while NLTK's packages are empty.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType

_PACKAGES = ("nltk", "nltk.stem", "nltk.tokenize")
_lock = threading.Lock()


@cache
def word_tokenizer() -> Callable[[str], list[str]]:
    """Return the function that splits a sentence into words."""
    return _module("nltk.tokenize.destructive").NLTKWordTokenizer().tokenize


@cache
def porter_stemmer() -> Callable[[str], str]:
    """Return the function from a word to its stem."""
    return _module("nltk.stem.porter").PorterStemmer().stem


def _module(name: str) -> ModuleType:
    """Return the module ``name`` of NLTK, which ``import nltk`` does not see if it comes later."""
    with _lock:
        if "nltk" in sys.modules:
            return import_module(name)
        try:
            for package in _PACKAGES:
                spec = find_spec(package)
                if spec is None:
                    raise ModuleNotFoundError(f"No module named {package!r}", name=package)
                sys.modules[package] = module_from_spec(spec)  # not executed
            return import_module(name)
        finally:
            for loaded in [module for module in sys.modules if module.partition(".")[0] == "nltk"]:
                del sys.modules[loaded]
