"""The process that the soak test kills: one run over a corpus."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

# The server imports these once; each child process would need seconds for them.
import nltk.tokenize.destructive  # noqa: F401
import punkt  # noqa: F401
import scipy.sparse  # noqa: F401
import torch
import transformers.models.auto.modeling_auto
import transformers.models.bert.modeling_bert
import transformers.models.bert.tokenization_bert  # noqa: F401

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.encoding.job import EncodeOptions, encode_corpus
from diffretriever_pyserini.encoding.progress import Progress


def encode(model: str, corpus: str, output: str, limit: int | None) -> None:
    """Encode and exit: 0, 3 if a file exceeds ``limit`` bytes (as on a full disk), 4 for another error of ours."""
    signal.alarm(120)  # ends a process that hangs
    torch.set_num_threads(1)
    code = 1
    try:
        retriever = DiffRetriever.from_pretrained(model, k_passage=3, cut_at_stop=False, impact_rounding="nearest")
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        options = EncodeOptions(rows_per_part=8, workers=0)
        encode_corpus(retriever, Corpus([Path(corpus)]), output, options, Progress(retriever, quiet=True))
        code = 0
    except ValueError as error:  # the base class of our errors
        code = 3 if "File too large" in str(error) else 4
    finally:
        os._exit(code)
