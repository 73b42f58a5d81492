"""Two modules of NLTK work without the rest of it, and leave it as it is."""

import subprocess
import sys

PROGRAM = """
import sys
from diffretriever_pyserini.model.nltk_parts import porter_stemmer, word_tokenizer

WORDS = "running relational ponies hopefulness skies dying generalizations at".split()
TEXT = "They'll say `it's 3,5 km' (about 1. mile), can't they? e.g. rock'n'roll..."
stems, words = [porter_stemmer()(word) for word in WORDS], word_tokenizer()(TEXT)
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"nltk", "pandas", "scipy", "sklearn"}), "none")

import nltk

assert stems == [nltk.stem.PorterStemmer().stem(word) for word in WORDS], stems
assert words == nltk.tokenize.destructive.NLTKWordTokenizer().tokenize(TEXT), words
print(len(set(stems)), "'ll" in words)
"""


def test_only_the_two_modules_are_imported() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["none", "8", "True"], done.stderr
