"""How many threads FAISS and torch take, for the length of a block or of a thread."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Let FAISS use ``count`` threads inside the block, where this thread calls it."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextlib.contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Let torch use ``count`` threads inside the block, where this thread calls it; None changes nothing."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> None:
    """Call this first in a thread that answers whole queries: more threads below it would only be in the way.

    OpenMP keeps these numbers for each thread; torch also takes them for threads to come, so whoever starts such
    threads does so inside ``torch_threads(torch.get_num_threads())``.
    """
    import faiss
    import torch

    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
