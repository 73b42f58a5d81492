"""The quality table of docs/benchmarks.md: BM25, MiniLM, and every mode of searching with a DiffRetriever model.

    python benchmarks/quality.py [BEIR folder ...] [--encoder NAME] [--output FOLDER] [--plot]

For the documentation inside Python (unless --no-demo) and each collection in BEIR layout: Pyserini's BM25, the
mean-pooled MiniLM that the default model was trained from, these two fused, and DiffRetriever with exact scores in
memory: pooled vectors (dense single), MaxSim (dense multi), lexical, and both fusions with the model's hybrid_weight.
Writes quality.md, quality.json and quality.png.
"""

import argparse
import json
import platform
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from diffretriever_pyserini import DiffRetriever, scoring
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.corpora.qrels import Qrels
from diffretriever_pyserini.demo.collection import write_collection
from diffretriever_pyserini.demo.commands import pyserini_steps
from diffretriever_pyserini.evaluation.metrics import evaluate
from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.evaluation.runs import Run, read_run, write_run
from diffretriever_pyserini.model.hub import local_folder
from diffretriever_pyserini.runtime.commands import run_step

MEASURES = ("nDCG@10", "R@100")
DEPTH = 1000
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_TOKENS = 256
CHUNK = 512


@dataclass(frozen=True)
class Texts:
    """A collection as the models read it: title and text joined by one blank."""

    name: str
    docids: list[str]
    passages: list[str]
    queries: dict[str, str]
    qrels: Qrels


def main() -> None:
    """Measure every system on every collection and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", type=Path, help="collections in BEIR layout")
    parser.add_argument("--encoder", default="diffretriever", help="model (default: %(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quality"), help="default: %(default)s")
    parser.add_argument("--no-demo", action="store_true", help="leave out the documentation inside Python")
    parser.add_argument("--plot", action="store_true", help="also draw quality.png")
    parser.add_argument("--weights", nargs="*", type=float, default=[], help="more weights of dense in the hybrids")
    parser.add_argument("--save-runs", action="store_true", help="also write every run file")
    options = parser.parse_args()
    model = DiffRetriever.from_pretrained(options.encoder, device=options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for dataset in [*([] if options.no_demo else [None]), *options.datasets]:
        with tempfile.TemporaryDirectory() as folder:
            texts, bm25 = prepare(Path(folder), dataset)
        parent = minilm_scores(texts, options.device)
        runs = {
            "BM25": bm25,
            "MiniLM, mean pooled": as_run(parent, texts),
            "BM25 + MiniLM": as_run(scoring.fuse(parent, as_scores(bm25, texts), depth=DEPTH), texts),
            **our_runs(model, texts, options.weights),
        }
        figures[texts.name] = {system: evaluate(run, texts.qrels, MEASURES).means for system, run in runs.items()}
        print(f"\n{texts.name}: {len(texts.docids)} passages, {len(texts.queries)} queries")
        for system, means in figures[texts.name].items():
            print(f"  {system:<24}" + "".join(f"  {name} {value:.4f}" for name, value in means.items()), flush=True)
        if options.save_runs:
            for system, run in runs.items():
                write_run(options.output / f"{texts.name}.{system.replace(' ', '-').replace(',', '')}.txt", run)
    save(figures, model, options.output)
    if options.plot:
        plot(figures, options.output / "quality.png")


def prepare(folder: Path, dataset: Path | None) -> tuple[Texts, Run]:
    """Write the collection for Pyserini, run its BM25, and return texts and run."""
    written = write_collection(folder, dataset, limit=None)
    for step in pyserini_steps("diffretriever", 1):
        if "index.bm25" in step.arguments:
            run_step(step, folder, folder / "log")
    corpus = list(Corpus(folder / "corpus" / "corpus.jsonl").passages())
    passages = [f"{passage.title} {passage.text}".strip() for passage in corpus]
    name = dataset.resolve().name if dataset else "python-docs"
    texts = Texts(name, [passage.docid for passage in corpus], passages, written.queries, written.qrels)
    return texts, read_run(folder / "run.bm25.txt")


def our_runs(model: DiffRetriever, texts: Texts, weights: list[float]) -> dict[str, Run]:
    """Runs of every mode of searching with one model, scores exact and in memory; ``weights`` add hybrids."""
    started = time.monotonic()
    parts = []
    for start in tqdm(range(0, len(texts.passages), CHUNK), desc=f"{texts.name}: encode", disable=None):
        parts.append(model.encode(texts.passages[start : start + CHUNK], side="passage"))
    print(f"{texts.name}: {len(texts.passages) / (time.monotonic() - started):.1f} passages/s encoded")
    import scipy.sparse

    queries = model.encode(list(texts.queries.values()), side="query")
    single = scoring.pooled_scores(queries.pooled, np.concatenate([part.pooled for part in parts]))
    multi = scoring.maxsim(queries.vectors, np.concatenate([part.vectors for part in parts]))
    impacts = scipy.sparse.vstack([part.weights for part in parts], format="csr")
    lexical = scoring.lexical_scores(queries.weights, impacts)
    scores = {
        "dense single": single,
        "dense multi (MaxSim)": multi,
        "lexical": np.where(lexical > 0, lexical, np.nan),
    }
    for weight in (model.config.hybrid_weight, *weights):
        suffix = "" if weight == model.config.hybrid_weight else f", {weight:g}"
        scores[f"hybrid, single{suffix}"] = scoring.fuse(single, lexical, weight, DEPTH)
        scores[f"hybrid, multi{suffix}"] = scoring.fuse(multi, lexical, weight, DEPTH)
    return {name: as_run(matrix, texts) for name, matrix in scores.items()}


def minilm_scores(texts: Texts, device: str) -> np.ndarray:
    """The baseline [queries, passages]: all-MiniLM-L6-v2, mean pooled over the attention mask, unit length."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = local_folder(MINILM)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder, dtype=torch.float32).to(device).eval()

    @torch.inference_mode()
    def embed(items: list[str]) -> np.ndarray:
        order = sorted(range(len(items)), key=lambda i: len(items[i]))
        vectors = np.zeros((len(items), encoder.config.hidden_size), dtype=np.float32)
        for start in tqdm(range(0, len(order), 64), desc=f"{texts.name}: MiniLM", disable=None):
            rows = order[start : start + 64]
            batch = tokenizer(
                [items[i] for i in rows], padding=True, truncation=True, max_length=MINILM_TOKENS, return_tensors="pt"
            ).to(device)
            mask = batch["attention_mask"].unsqueeze(2)
            pooled = (encoder(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors

    return scoring.pooled_scores(embed(list(texts.queries.values())), embed(texts.passages))


def as_scores(run: Run, texts: Texts) -> np.ndarray:
    """The scores of ``run`` [queries, passages]; NaN for passages that are not in it."""
    column = {docid: i for i, docid in enumerate(texts.docids)}
    scores = np.full((len(texts.queries), len(texts.docids)), np.nan, dtype=np.float32)
    for row, qid in enumerate(texts.queries):
        for docid, score in run.get(qid, {}).items():
            scores[row, column[docid]] = score
    return scores


def as_run(scores: np.ndarray, texts: Texts) -> Run:
    """The best passages of each row of ``scores`` [queries, passages]; passages with NaN are left out."""
    run: Run = {}
    for qid, row in zip(texts.queries, scores, strict=True):
        order = np.argsort(-np.nan_to_num(row, nan=-np.inf), kind="stable")[:DEPTH]
        run[qid] = {texts.docids[i]: float(row[i]) for i in order if not np.isnan(row[i])}
    return run


def save(figures: dict[str, dict[str, dict[str, float]]], model: DiffRetriever, folder: Path) -> None:
    """Write quality.json and quality.md: a line per system, two columns per collection, and the means."""
    sets = list(figures)
    systems = list(figures[sets[0]])
    header = ["system", *(f"{name} {measure}" for name in sets for measure in MEASURES)]
    header += [f"mean {measure}" for measure in MEASURES]
    rows = []
    for system in systems:
        values = [[figures[name][system][measure] for measure in MEASURES] for name in sets]
        rows.append([system, *(f"{value:.4f}" for value in np.ravel(values))])
        rows[-1] += [f"{value:.4f}" for value in np.mean(values, axis=0)]
    table = markdown_table(header, rows)
    (folder / "quality.md").write_text(table + "\n", encoding="utf-8")
    about = {
        "model": model.config.to_dict(),
        "fingerprint": model.fingerprint,
        "device": model.device,
        "python": platform.python_version(),
        "figures": figures,
    }
    (folder / "quality.json").write_text(json.dumps(about, indent=2, default=str) + "\n", encoding="utf-8")
    print(f"\n{table}\n\nwritten to {folder}")


def plot(figures: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Draw nDCG@10 as grouped bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sets, systems = list(figures), list(next(iter(figures.values())))
    width = 0.8 / len(systems)
    figure, axes = plt.subplots(figsize=(2 + 2 * len(sets), 4))
    for number, system in enumerate(systems):
        offsets = np.arange(len(sets)) + (number - (len(systems) - 1) / 2) * width
        axes.bar(offsets, [figures[name][system][MEASURES[0]] for name in sets], width, label=system)
    axes.set_xticks(np.arange(len(sets)), sets)
    axes.set_ylabel(MEASURES[0])
    axes.legend(fontsize="small", ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
