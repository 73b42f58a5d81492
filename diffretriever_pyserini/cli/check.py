"""`diffretriever check`: whether a model works here, from its files to its vectors, and what to do if not."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..errors import DiffRetrieverError, reason, sentence
from ..settings import Batch, Count, Masks, parser_of
from .check_texts import TEXTS
from .format import Check, counted, size

if TYPE_CHECKING:
    import numpy as np

    from ..model.config import RetrieverConfig
    from ..model.layout import Layout
    from ..model.representations import Representations
    from ..model.retriever import DiffRetriever

_HELP = "check a model: files, token ids, prompt, weights, vectors, memory and speed"
_DETAILS = """Each line is ok, or a warning or an error with what to do. Run it first with a model that is new to you:
fifty texts that come with the package are encoded in batches and alone. Exit code 1 for an error.

examples:
  diffretriever check diffretriever
  diffretriever check Dream-org/Dream-v0-Instruct-7B --device cuda --k-query 4 --k-passage 16
  diffretriever check my-folder --texts 5 --json
"""
_WIDTH = 9  # of the names of the checks
_SAME = 1e-4  # float32 vectors of a text alone and in a batch may differ by this much
_SAME_HALF, _SIMILAR_HALF = 0.99, 0.9  # their cosine in 16 bits: below the second it is no longer rounding
_COLLAPSED, _SUSPICIOUS = 0.999, 0.98  # mean cosine between the vectors of different texts


@dataclass(frozen=True)
class _Run:
    """The options of one run that are no settings of the model."""

    device: str
    dtype: str | None
    texts: int
    batch_size: int


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check", help=_HELP, description=_HELP, epilog=_DETAILS, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="model: prebuilt name, hub id, folder or YAML file")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1 ... (default: %(default)s)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
    parser.add_argument("--k-query", type=parser_of(Masks), metavar="K", help="mask positions of a query")
    parser.add_argument("--k-passage", type=parser_of(Masks), metavar="K", help="mask positions of a passage")
    parser.add_argument("--max-length", type=parser_of(Count), metavar="N", help="tokens of prompt and text")
    parser.add_argument(
        "--texts",
        type=parser_of(Count),
        default=len(TEXTS),
        metavar="N",
        help="texts to encode, at least 2; fewer for a large model on a CPU (default and most: %(default)s)",
    )
    parser.add_argument("--batch-size", type=parser_of(Batch), default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from ..model.encoder_names import parse_encoder_name

    name = parse_encoder_name(arguments.name).target
    run = _Run(arguments.device, arguments.dtype, max(2, arguments.texts), arguments.batch_size)
    settings = {key: getattr(arguments, key) for key in ("k_query", "k_passage", "max_length")}
    checks = []
    for check in model_report(name, settings, run):
        checks.append(check)
        if not arguments.json:
            print(check.lines(_WIDTH), flush=True)
    failed = any(check.status == "error" for check in checks)
    if arguments.json:
        print(json.dumps({"model": name, "ok": not failed, "checks": [asdict(check) for check in checks]}))
    return int(failed)


def model_report(name: str, settings: dict[str, Any], run: _Run) -> Iterator[Check]:
    """The checks of model ``name`` with ``settings``, each as soon as it is made; a failure to load ends them."""
    from ..model.model_cache import say_what_is_loaded
    from ..model.resolve import resolve_config
    from ..model.retriever import DiffRetriever
    from ..model.tokenization import Preparer

    step = "config"
    try:
        config = resolve_config(name, **settings)
        yield Check("config", "ok", _described(config))
        step = "files"
        yield from _files(config)
        step = "tokens"
        prepare = Preparer(config)
        for side, layout in prepare.layouts.items():
            if side == "query" or layout.mask_id != prepare.layouts["query"].mask_id:
                yield from _mask(prepare.tokenizer, layout)
                yield from _tail(config, prepare.tokenizer, layout)
            yield from _prompt(config, prepare.tokenizer, side, layout)
        step = "weights"
        say_what_is_loaded(config)
        model = DiffRetriever(config, device=run.device, dtype=run.dtype)
        yield from _weights(model)
        step = "vectors"
        yield from _encoded(model, run)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "out of memory" not in str(error).lower():
            raise
        remedy = "use --batch-size 1, --dtype bfloat16, or a device with more memory"
        yield Check(step, "error", f"out of memory: {reason(error)}", remedy)
    except DiffRetrieverError as error:
        yield Check(step, "error", "this step failed, so the following ones were not made", sentence(error))


def _described(config: RetrieverConfig) -> str:
    adapter = f", adapter {config.adapter}" if config.adapter else ""
    numbers = f"K {config.k_query}/{config.k_passage}, at most {config.max_length} tokens"
    return f"{config.family}, {numbers}, base {config.backbone}{adapter}"


def _files(config: RetrieverConfig) -> Iterator[Check]:
    from ..files.atomic import read_json
    from ..model.backbones.base import weight_files
    from ..model.backbones.loading import adapter_files
    from ..model.hub import local_folder
    from ..model.weights import parameter_count

    base = local_folder(config.backbone)
    files = weight_files(base)
    if config.adapter:
        files = [*files, *adapter_files(local_folder(config.adapter))]
    for path in files:
        if not path.is_file():
            yield Check("files", "error", f"{path} is missing", "download the model again")
            return
    parameters = parameter_count(files)
    total = sum(path.stat().st_size for path in files)
    text = f"{counted(len(files), 'file')} of weights, {size(total)}, {parameters / 1e6:,.1f} M values"
    if (base / "config.json").is_file() and read_json(base / "config.json").get("auto_map"):
        text += "; it names code of its own, which is not run"
    yield Check("files", "ok", text)


def _mask(tokenizer: Any, layout: Layout) -> Iterator[Check]:
    """The id of the mask against what the tokenizer says; a wrong one gives vectors that look like any others."""
    mask = layout.mask_id
    if mask is None:  # another read-out
        return
    token = tokenizer.convert_ids_to_tokens(mask) if mask < len(tokenizer) else None
    own = tokenizer.mask_token_id
    known = {id_ for id_, added in tokenizer.added_tokens_decoder.items() if added.special} | {own}
    if own is not None and own != mask:
        remedy = f"set mask_token_id to {own}, or use the tokenizer of this model"
        yield Check("mask", "error", f"id {mask} ({token!r}), but the tokenizer's mask is {own}", remedy)
    elif token is None:
        remedy = "compare it with the model's card; if it is wrong, set mask_token_id"
        yield Check("mask", "warning", f"id {mask}, which the tokenizer does not name", remedy)
    elif mask not in known:
        remedy = "set mask_token_id to the id of the mask in the model's card"
        yield Check("mask", "error", f"id {mask} is the ordinary token {token!r}", remedy)
    else:
        yield Check("mask", "ok", f"id {mask}, {token!r}")


def _tail(config: RetrieverConfig, tokenizer: Any, layout: Layout) -> Iterator[Check]:
    from ..model.backbones.loading import family_module

    if not layout.tail:
        return
    text = " ".join(f"{token} ({id_})" for token, id_ in zip(_tokens(tokenizer, layout.tail), layout.tail, strict=True))
    ends = family_module(config.family).RELEASE.chat.ends_of_turn
    if config.family != "masked_lm" and not any(token in tokenizer.get_vocab() for token in ends):
        remedy = "check that the tokenizer is that of the Instruct model"
        yield Check("tail", "warning", f"{text}; the vocabulary has no end of turn ({', '.join(ends)})", remedy)
    else:
        yield Check("tail", "ok", text)


def _prompt(config: RetrieverConfig, tokenizer: Any, side: str, layout: Layout) -> Iterator[Check]:
    from ..model.prompts import SYSTEM
    from ..model.readouts import has_terms

    before, after = (tokenizer.decode(list(ids)) for ids in (layout.prefix, layout.suffix))
    text = f"{side}: {before!r} text {after!r}, {layout.text_budget} tokens for the text"
    templated = has_terms(config.readout) and getattr(tokenizer, "chat_template", None)
    if templated and not config.fixed_ids(side) and len(layout.prefix) > 1:
        if SYSTEM not in before:
            yield Check("prompt", "warning", text, "its chat template drops the system turn; compare it with the card")
            return
        if not after.endswith('"'):
            yield Check("prompt", "warning", text, "the last token before the masks is not the opening quote")
            return
    yield Check("prompt", "ok", text)


def _tokens(tokenizer: Any, ids: tuple[int, ...]) -> list[str]:
    return [str(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]


def _weights(model: DiffRetriever) -> Iterator[Check]:
    backbone = model._backbone
    kind = type(backbone.model).__name__
    yield Check(
        "weights", "ok", f"{kind}, {str(model.dtype).removeprefix('torch.')} on {model.device}, nothing left over"
    )
    for note in backbone.notes:
        yield Check("weights", "warning", note, "compare the files with those of the model's publisher")
    if backbone.model.get_output_embeddings() is None:
        return
    tied = "tied to the input embeddings" if backbone.is_tied else "a matrix of its own"
    text = f"{tied}, {model.vocab_size:,} rows for {len(model.tokenizer):,} tokens"
    yield Check("head", "ok", text)


def _encoded(model: DiffRetriever, run: _Run) -> Iterator[Check]:
    """Checks of the representations of the built-in texts, in batches and alone, and of memory and speed."""
    from ..explaining.evidence import shown_row
    from ..model.tokenization import Prepared

    texts = list(TEXTS[: run.texts])
    prepared: Prepared = model.prepare(texts, "passage")
    model.represent(prepared.take([0]))  # the first call also compiles and allocates
    start = time.perf_counter()
    together = model.represent(prepared, run.batch_size)
    seconds = time.perf_counter() - start
    yield from _different(together)
    alone = [model.represent(prepared.take([i])) for i in range(len(texts))]
    yield from _alone(together, alone, str(model.dtype))
    if model.reader.has_terms:
        answer = model.forward_masks(texts[:1], side="passage").logits[0].argmax(axis=1)
        yield Check(
            "answer", "ok", f"{texts[0]!r} -> {' '.join(shown_row(model, row).strip() for row in answer.tolist())}"
        )
    tokens = int(prepared.lengths.sum())
    speed = f"{tokens / seconds:,.0f} tokens and {len(texts) / seconds:,.1f} passages per second"
    yield Check("speed", "ok", f"{speed} in batches of {run.batch_size}, {size(_peak_memory(model.device))} of memory")


def _different(reps: Representations) -> Iterator[Check]:
    """Whether different texts have different vectors: a model can fall into its first token or ignore the text."""
    import numpy as np

    pooled = reps.pooled / np.maximum(np.linalg.norm(reps.pooled, axis=1, keepdims=True), 1e-9)
    between = (pooled @ pooled.T)[np.triu_indices(len(pooled), 1)]
    mean = float(between.mean())
    text = f"mean cosine between different texts {mean:.3f}, highest {between.max():.3f}"
    if reps.vectors.shape[1] > 1:
        text += f"; between the vectors of one text {_within(reps.vectors):.3f}"
    if mean > _COLLAPSED:
        remedy = "the vectors do not depend on the text: compare mask, prompt and weights with the model's card"
        yield Check("vectors", "error", text, remedy)
    elif mean > _SUSPICIOUS:
        remedy = "rankings may be poor; an untrained base can be like this"
        yield Check("vectors", "warning", text, remedy)
    else:
        yield Check("vectors", "ok", text)


def _within(vectors: np.ndarray) -> float:
    """Mean cosine between different vectors [N, K, H] of one text."""
    import numpy as np

    first, second = np.triu_indices(vectors.shape[1], 1)
    cosines = vectors @ vectors.transpose(0, 2, 1)
    return float(cosines[:, first, second].mean())


def _alone(together: Representations, alone: list[Representations], dtype: str) -> Iterator[Check]:
    """Whether a text has the same vectors alone as in a batch, where padding or other texts could leak into it."""
    import numpy as np

    single = np.concatenate([reps.vectors for reps in alone])
    kept = together.vectors.any(axis=2) & single.any(axis=2)  # a position near a tie may be cut in one of them
    difference = float(np.abs(together.vectors - single)[kept].max(initial=0))
    cosine = float((together.vectors * single).sum(axis=2)[kept].min(initial=1))
    text = f"a text alone and in a batch: vectors differ by at most {difference:.1e}, cosine at least {cosine:.4f}"
    exact = dtype == "torch.float32"
    if difference <= _SAME if exact else cosine >= _SAME_HALF:
        yield Check("batches", "ok", text)
    elif not exact and cosine >= _SIMILAR_HALF:
        remedy = "experts of a mixture can change by rounding; with --dtype float32 the two must agree"
        yield Check("batches", "warning", text, remedy)
    else:
        yield Check(
            "batches", "error", text, "other texts leak in; report this model, and use --batch-size 1 until then"
        )


def _peak_memory(device: str) -> float:
    """Most bytes that torch had allocated on a GPU, or that this process had in main memory."""
    import torch

    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    import resource

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)
