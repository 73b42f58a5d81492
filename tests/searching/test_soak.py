"""A server: one open index, many threads, every mode. ``SOAK_SECONDS=600 pytest tests/searching/test_soak.py``."""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diffretriever_pyserini.searching import open_index

from .conftest import TOPICS

pytestmark = [pytest.mark.java, pytest.mark.slow]
SECONDS = float(os.environ.get("SOAK_SECONDS", "20"))
MODES = ("dense", "lexical", "hybrid")


def resident() -> int:
    """Resident bytes of this process without the unused part of Java's heap, which grows until it is collected."""
    from jnius import autoclass

    heap = autoclass("java.lang.Runtime").getRuntime()
    heap.gc()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") - heap.freeMemory()


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read from Linux's /proc")
def test_threads_get_their_own_results_and_memory_stays(folder: Path) -> None:
    with open_index(folder) as index:
        expected = {(mode, qid): index.search({qid: TOPICS[qid]}, mode=mode)[qid] for mode in MODES for qid in TOPICS}

        def serve(seed: int, until: float) -> int:
            draw, answered = random.Random(seed), 0
            while time.monotonic() < until:
                mode, qids = draw.choice(MODES), draw.sample(sorted(TOPICS), draw.randint(1, len(TOPICS)))
                results = index.search({qid: TOPICS[qid] for qid in qids}, mode=mode, hits=draw.choice((3, 1000)))
                for qid, hits in results.items():
                    head = expected[mode, qid][: len(hits)]
                    assert [docid for docid, _ in hits] == [docid for docid, _ in head]
                    assert [score for _, score in hits] == pytest.approx([score for _, score in head], abs=2e-6)
                answered += len(qids)
            return answered

        with ThreadPoolExecutor(8) as pool:
            answered, megabytes = 0, []
            for turn in range(8):
                end = time.monotonic() + SECONDS / 8
                answered += sum(pool.map(lambda seed, end=end: serve(seed, end), range(8 * turn, 8 * turn + 8)))
                megabytes.append(resident() / 1e6)
        print(f"{answered} queries in {SECONDS:.0f} s, memory in MB: {', '.join(f'{m:.0f}' for m in megabytes)}")
        assert answered > 0
        assert max(megabytes[4:]) < 1.15 * max(megabytes[:4]), "memory still grows after the warm-up"
