"""The training loop of the default model."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mini import losses
from mini.batches import VOCABULARY, epoch, inverse_document_frequency, neighbour_leaves
from mini.develop import develop
from mini.save import save_adapter
from mini.student import Student, base_folder, lexical_weights, unit
from mini.texts import PairSet, Ragged, TokenisedTexts, load_sources, tokenise

MAX_LENGTH = 256  # the parent's
WEIGHT_PER_IDF = 0.15  # a term of idf 7 starts with weight 1.05, that is with logit e^1.05 - 1
LENGTHS = ((64, 0.35), (128, 0.5), (224, 0.15))  # passages of a batch are cut to one of these
QUERY_LENGTH = 64
DENSE_TEMPERATURE = 0.05
BM25_TEMPERATURE = 4.0
K1, B = 0.9, 0.4
DENOISED = 12  # passages per batch that are also read with part of their text masked


def train(options: argparse.Namespace) -> None:
    """Run the recipe in ``options.workers`` processes that average their gradients; writes adapter and log."""
    texts(options)  # fills the cache before several processes read it
    (options.output / "rendezvous").unlink(missing_ok=True)  # left by a killed run
    if options.workers == 1:
        work(0, options)
        return
    torch.multiprocessing.spawn(work, args=(options,), nprocs=options.workers)


def work(rank: int, options: argparse.Namespace) -> None:
    """One training process. Two processes of one thread are faster than one process of two threads."""
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    if options.workers > 1:
        address = (options.output / "rendezvous").resolve().as_uri()
        torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=options.workers)
    started = time.time()
    run = Run(options, rank)
    for step in range(options.steps):
        run.step(step)
        if rank == 0 and (step + 1) % 100 == 0:
            run.save()
        if rank == 0 and options.develop_every and (step + 1) % options.develop_every == 0:
            run.develop(step + 1)
    if rank == 0:
        run.save()
        run.develop(options.steps, parent=True)
        run.log["wall_seconds"] = round(time.time() - started, 1)
        text = json.dumps(run.log, indent=1) + "\n"
        (options.output / "training_log.json").write_text(text, encoding="utf-8")
    if options.workers > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


class Run:
    """Model, data and optimiser of one training process."""

    def __init__(self, options: argparse.Namespace, rank: int):
        self.options, self.rank = options, rank
        self.device, self.amp = torch.device(options.device), not options.no_bf16
        self.folder = base_folder()
        sources, self.dev = texts(options)
        self.idf = inverse_document_frequency([passages.content for _, passages in sources.values()])
        self.rows_of = vocabulary_rows(options.terms)
        self.average = float(np.mean(np.concatenate([np.diff(p.pieces.starts) for _, p in sources.values()])))
        bias = np.expm1(WEIGHT_PER_IDF * self.idf)
        ks = (options.k_query, options.k_passage)
        student = Student(self.folder, ks, options.mask_positions, options.rank, options.alpha, bias)
        self.student = student.to(self.device)
        self.student.eval()  # no dropout: it helps neither the parent's embeddings nor so short a run
        self.trained = [p for p in self.student.parameters() if p.requires_grad]
        self.optimiser = _optimiser(self.student, options)
        self.sources = {name: value for name, value in sources.items() if name not in options.without}
        rng = np.random.default_rng(options.seed)
        leaves = {n: neighbour_leaves(p.content, self.idf, options.leaf, rng) for n, (_, p) in self.sources.items()}
        self.plan = _endless(leaves, options.batch, rng)
        self.tokens, self.started = 0, time.time()
        self.log: dict[str, Any] = {
            "options": {name: value for name, value in vars(options).items() if not isinstance(value, Path)},
            "pairs": {name: len(queries) for name, (queries, _) in self.sources.items()},
            "steps": [],
            "develop": [],
        }

    def step(self, step: int) -> None:
        """One optimiser step; every process takes another batch of the common plan."""
        options = self.options
        name, chosen, cut = [next(self.plan) for _ in range(options.workers)][self.rank]
        batch = Batch(self.sources[name], chosen, cut, self.rows_of, self.idf, self.average, self.device)
        self.student.k_passage = options.also_k_passage if step % 4 == 3 else options.k_passage
        parts = batch_losses(self.student, batch, options, self.device, self.amp)
        self.student.k_passage = options.k_passage
        if options.denoise:
            rng = np.random.default_rng([options.seed, step, self.rank])
            rows = batch.rows[batch.size : batch.size + DENOISED]
            parts["denoise"] = self.student.denoising(rows, rng, self.device, self.amp)
        loss = sum(getattr(options, key.split("_")[0]) * value for key, value in parts.items())
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * _schedule(step, step / options.steps)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.trained, 5.0)
        self.optimiser.step()
        self.tokens += batch.tokens
        if step % 10 == 0 and self.rank == 0:
            row = {"step": step, "seconds": round(time.time() - self.started, 1), "tokens": self.tokens, "source": name}
            row |= {key: round(float(value.detach()), 4) for key, value in parts.items()}
            self.log["steps"].append(row)
            print(" ".join(f"{key}={value}" for key, value in row.items()), flush=True)

    def _average_gradients(self) -> None:
        if self.options.workers == 1:
            return
        gradients = [p.grad for p in self.trained if p.grad is not None]  # all: each takes part in every step
        flat = torch.cat([gradient.ravel() for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.options.workers
        torch.nn.utils.vector_to_parameters(flat, gradients)

    def develop(self, step: int, parent: bool = False) -> None:
        """Score the development sets, print and log."""
        scores = develop(self.student, self.dev, self.device, self.amp, parent)
        self.log["develop"].append({"step": step, "scores": scores})
        for name, row in scores.items():
            print(f"  develop {step} {name:15s}", " ".join(f"{k} {v:.4f}" for k, v in row.items()), flush=True)

    def save(self) -> None:
        """Write the present adapter."""
        options = self.options
        save_adapter(self.student, options.output, options.terms, MAX_LENGTH, options.rank, options.alpha)


def _endless(leaves, batch, rng):
    lengths, shares = zip(*LENGTHS, strict=True)
    while True:
        for name, chosen in epoch(leaves, batch, rng):
            yield name, chosen, int(rng.choice(lengths, p=shares))


def _schedule(step: int, progress: float) -> float:
    """Warm-up over 40 steps, with a cosine to zero over the run; ``progress`` is the finished share of it."""
    return min(1.0, (step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _optimiser(student: Student, options: argparse.Namespace) -> torch.optim.Optimizer:
    lora = [p for n, p in student.named_parameters() if p.requires_grad and ".lora_" in n]
    bias = [student.head.bias]
    head = [*student.head.transform.parameters(), student.lexical_scale]
    groups = [(lora, options.lr), (head, options.head_lr), (bias, options.bias_lr)]
    return torch.optim.AdamW(
        [{"params": params, "lr": lr, "peak": lr} for params, lr in groups], betas=(0.9, 0.98), weight_decay=0.0
    )


class Batch:
    """Pairs of one batch: word pieces, content terms, BM25-like targets and the BM25 scores of all its pairs."""

    def __init__(
        self,
        source: tuple[TokenisedTexts, TokenisedTexts],
        chosen: np.ndarray,
        cut: int,
        rows_of: np.ndarray,
        idf: np.ndarray,
        average: float,
        device: torch.device,
    ):
        queries, passages = source
        self.size = len(chosen)
        self.rows = [queries.pieces[i][:QUERY_LENGTH] for i in chosen] + [passages.pieces[i][:cut] for i in chosen]
        self.tokens = sum(len(row) for row in self.rows)
        content = [queries.content[i] for i in chosen]
        content += [visible_terms(passages.content[i], rows_of[passages.pieces[i]], cut) for i in chosen]
        terms = np.unique(np.concatenate(content))
        allowed = np.zeros((2 * self.size, len(terms)), dtype=np.float32)
        frequency = np.zeros_like(allowed)
        for i, (row, ids) in enumerate(zip(self.rows, content, strict=True)):
            columns = np.searchsorted(terms, ids)
            allowed[i, columns] = 1
            pieces = rows_of[row]
            columns = np.searchsorted(terms, pieces)
            columns = columns[(columns < len(terms)) & (terms[np.minimum(columns, len(terms) - 1)] == pieces)]
            np.add.at(frequency[i], columns, 1)
        frequency = np.maximum(frequency, 1) * allowed
        length = np.array([len(row) for row in self.rows], dtype=np.float32)[:, None]
        saturated = frequency * (K1 + 1) / (frequency + K1 * (1 - B + B * length / average) + 1e-9)
        weight = idf[terms].astype(np.float32)
        targets = WEIGHT_PER_IDF * saturated * weight
        bm25 = (allowed[: self.size] * np.sqrt(weight)) @ (saturated[self.size :] * weight).T / math.sqrt(7.0)
        same = np.array(
            [[a is b or np.array_equal(a, b) for b in self.rows[self.size :]] for a in self.rows[self.size :]]
        )
        self.terms = torch.as_tensor(terms.astype(np.int64), device=device)
        self.allowed = torch.as_tensor(allowed, device=device)
        self.targets = torch.as_tensor(targets, device=device)
        self.bm25 = torch.as_tensor(bm25, dtype=torch.float32, device=device)
        self.same = torch.as_tensor(same, device=device)


def visible_terms(content: np.ndarray, rows: np.ndarray, cut: int) -> np.ndarray:
    """Terms of a passage without those after the cut, which the model does not see.

    ``rows`` are the terms of its word pieces. A term that is not one of them is a word that was split differently; it
    is kept where the passage was read to its end.
    """
    visible = np.isin(content, rows[:cut])
    if len(rows) < MAX_LENGTH - 2:
        visible |= ~np.isin(content, rows)
    return content[visible]


def vocabulary_rows(terms: str) -> np.ndarray:
    """The head row of each word piece: its own, or with ``stems`` that of its stem."""
    from transformers import AutoTokenizer

    from diffretriever_pyserini.model.lexical import ContentTokens

    rows = np.arange(VOCABULARY)
    if terms == "stems":
        tokenizer = AutoTokenizer.from_pretrained(str(base_folder()))
        content = ContentTokens(tokenizer, stems=True)
        for word, row in tokenizer.get_vocab().items():
            ids = content(word) if word.isalpha() else []
            rows[row] = ids[0] if len(ids) == 1 else row
    return rows


def batch_losses(
    student: Student, batch: Batch, options: argparse.Namespace, device: torch.device, amp: bool
) -> dict[str, Tensor]:
    """Every part of the loss by name; the text before the first underscore is the option of its weight."""
    n = batch.size
    embeddings = parent_embeddings(student, batch.rows, options, device, amp)
    hidden = [student.masks(batch.rows[:n], student.k_query, device, amp)]
    hidden += [student.masks(batch.rows[n:], student.k_passage, device, amp)]
    queries, passages = unit(hidden[0]), unit(hidden[1])
    allowed = (batch.allowed[:n], batch.allowed[n:])
    logits = (student.logits(states, batch.terms) for states in hidden)
    weights = torch.cat([lexical_weights(*pair) for pair in zip(logits, allowed, strict=True)])
    teacher = embeddings[:n] @ embeddings[n:].T / DENSE_TEMPERATURE + batch.bm25 / BM25_TEMPERATURE
    targets = losses.soft_targets(teacher, batch.same, options.soft)
    pooled = losses.pooled_scores(queries, passages) / DENSE_TEMPERATURE
    multi = losses.maxsim(queries, passages) / DENSE_TEMPERATURE
    lexical = student.lexical_scale * (weights[:n] @ weights[n:].T)
    return {
        "distil": losses.cosine_distance(torch.cat([queries.mean(1), passages.mean(1)]), embeddings),
        "dense_pooled": losses.contrast(pooled, targets),
        "dense_multi": losses.contrast(multi, targets),
        "lexical": losses.contrast(lexical, targets),
        "hybrid": losses.contrast(pooled + lexical, targets),
        "regress": losses.weight_regression(weights, batch.targets, batch.allowed),
    }


def parent_embeddings(
    student: Student, rows: list[np.ndarray], options: argparse.Namespace, device: torch.device, amp: bool
) -> Tensor:
    """The parent's embeddings of ``rows``; cached on disk for runs with the same batches."""
    key = hashlib.sha256(b"|".join(row.tobytes() for row in rows)).hexdigest()[:24]
    path = cache_folder(options) / "parent" / f"{key}.npy"
    if path.is_file():
        return torch.as_tensor(np.load(path, allow_pickle=False).astype(np.float32), device=device)
    embeddings = student.teacher(rows, device, amp)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, embeddings.cpu().numpy().astype(np.float16), allow_pickle=False)
    return embeddings


def cache_folder(options: argparse.Namespace) -> Path:
    """Folder of tokenised texts and the parent's embeddings, shared between runs."""
    return options.cache or options.output / "cache"


def texts(options: argparse.Namespace):
    """Tokenised training pairs {source: (queries, passages)} and development sets, from the cache if it exists."""
    from transformers import AutoTokenizer

    from diffretriever_pyserini.model.lexical import ContentTokens

    tokenizer = AutoTokenizer.from_pretrained(str(base_folder()))
    content = ContentTokens(tokenizer, excluded=[tokenizer.mask_token_id], stems=options.terms == "stems")
    cache = cache_folder(options)
    cache.mkdir(parents=True, exist_ok=True)
    train, dev = {}, {}
    for pairs in load_sources(options.data, options.seed, dev_distractors=options.dev_distractors, scale=options.scale):
        path = cache / f"{pairs.name}-{options.terms}-{options.seed}-{options.scale}-{options.dev_distractors}.npz"
        tables = _load(path) if path.is_file() else _tokenise(pairs, path, tokenizer, content)
        train[pairs.name] = (tables["queries"], tables["passages"])
        if pairs.dev_queries:
            dev[pairs.name] = (tables["dev_queries"], tables["dev_passages"])
    return train, dev


def _tokenise(pairs: PairSet, path: Path, tokenizer, content) -> dict[str, TokenisedTexts]:
    limit = MAX_LENGTH - 2
    tables = {
        part: tokenise(getattr(pairs, part), tokenizer, content, limit, f"{pairs.name} {part}")
        for part in ("queries", "passages", "dev_queries", "dev_passages")
    }
    arrays = {}
    for part, table in tables.items():
        for kind in ("pieces", "content"):
            ragged = getattr(table, kind)
            arrays[f"{part}.{kind}.values"], arrays[f"{part}.{kind}.starts"] = ragged.values, ragged.starts
    np.savez(path, **arrays)
    return tables


def _load(path: Path) -> dict[str, TokenisedTexts]:
    with np.load(path, allow_pickle=False) as arrays:
        return {
            part: TokenisedTexts(
                *(
                    Ragged(arrays[f"{part}.{kind}.values"], arrays[f"{part}.{kind}.starts"])
                    for kind in ("pieces", "content")
                )
            )
            for part in ("queries", "passages", "dev_queries", "dev_passages")
        }
