"""Cost of encoding compared with the bare forward pass and with simpler code: ratios, each measured in one run.

    python benchmarks/encode.py [bare] [naive] [k] [memory] [queries] [--device cpu|cuda] [--dtype bfloat16]

bare      `encode_corpus` from JSON lines to a store, against the forward pass alone (blocks and the output head's
          columns on the K rows) over the same tokens in rows of equal length: the cost of tokenising, padding, writing.
naive     ours against a straightforward implementation, on a Dream-shaped model with the real 152k vocabulary: the
          head at every token, padded batches of 32 in corpus order, a Python loop per text, one pass per
          representation. Also the factor of each part.
k         K = 16 against K = 1 over the same passages, and the ratio of their arithmetic.
memory    peak memory of `diffretriever encode`, `index` (lexical, sq8, ivfpq) and `search` for --passages against a
          hundredth of them, with a very small model.
queries   one forward pass for both representations of a hybrid search against two encoders.

The two variants of a ratio are measured alternately; the median of the rounds counts. Writes encode.md, encode.json
and encode.png to --output.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from diffretriever_pyserini import DiffRetriever
from diffretriever_pyserini.corpora.corpus import Corpus
from diffretriever_pyserini.demo.python_docs import interpreter_documentation
from diffretriever_pyserini.encoding.job import TOKEN_BUDGETS, EncodeOptions, encode_corpus
from diffretriever_pyserini.encoding.progress import Progress, block_parameters
from diffretriever_pyserini.evaluation.report import markdown_table
from diffretriever_pyserini.model.tokenization import Prepared, Ragged

SIZES = {"hidden_size": 256, "intermediate_size": 8192, "num_hidden_layers": 60, "vocab_size": 152064}
ROUNDS = 3
Rows = list[list[str]]


def main() -> None:
    """Run the chosen benchmarks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", choices=[*BENCHMARKS, []], help="default: all")
    parser.add_argument("--encoder", default="diffretriever", help="model of bare, k and queries")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--texts", type=int, default=256, help="passages per round (default: %(default)s)")
    parser.add_argument("--passages", type=int, default=1_000_000, help="for `memory` (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=SIZES["num_hidden_layers"], help="of the Dream-shaped model")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/encode"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows: Rows = []
    for name in options.which or BENCHMARKS:
        for row in BENCHMARKS[name](options):
            print("  ".join(row), flush=True)
            rows.append([name, *row])
    table = markdown_table(["benchmark", "what", "value", "how"], rows)
    (options.output / "encode.md").write_text(f"{table}\n\n{platform.processor() or platform.machine()}\n")
    (options.output / "encode.json").write_text(json.dumps(rows, indent=1) + "\n")
    plot(rows, options.output / "encode.png")
    print(table)


def plot(rows: Rows, path: Path) -> None:
    """Bars of the ratios on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ratios = [(f"{name}: {what}", float(value)) for name, what, value, _ in rows if "tokens/s" not in what]
    figure, axes = pyplot.subplots(figsize=(9, 0.6 + 0.35 * len(ratios)), layout="constrained")
    bars = axes.barh([what for what, _ in ratios], [value for _, value in ratios])
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    axes.set_xlabel("ratio")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def passages(count: int) -> list[str]:
    """Real texts of many lengths: the documentation inside Python."""
    texts = [passage.text for passage in interpreter_documentation(passages=2000).passages]
    return [texts[i % len(texts)] for i in np.random.default_rng(1).permutation(max(count, len(texts)))[:count]]


def take_turns(
    variants: dict[str, Callable[[], Any]], rounds: int, warm_up: int = 1, title: str | None = None
) -> dict[str, float]:
    """Median seconds of each variant; they alternate, after ``warm_up`` rounds that do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in tqdm(range(rounds + warm_up), desc=title or " / ".join(variants), disable=None):
        for name, function in variants.items():
            started = time.perf_counter()
            function()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def bare(options: argparse.Namespace) -> Rows:
    """From JSON lines to a store, against the forward pass alone."""
    model = DiffRetriever.from_pretrained(options.encoder, device=options.device, dtype=options.dtype)
    texts = passages(options.texts)
    prepared = model.prepare(texts, "passage")
    budget = TOKEN_BUDGETS[options.device.partition(":")[0]]
    equal = equal_rows(prepared)

    def forward_only(inputs: Prepared) -> None:
        import torch

        for rows in model.reader.batches(inputs, 0, budget):
            content = [inputs.content[i] for i in rows] if inputs.content is not None else []
            columns = np.zeros((len(rows), max(map(len, content), default=1)), dtype=np.int64)
            for row, ids in zip(columns, content, strict=False):
                row[: len(ids)] = ids
            with torch.inference_mode():
                model.reader.read(inputs, rows, torch.from_numpy(columns).to(model.device))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl")
        lines = (json.dumps({"id": str(i), "text": text}) for i, text in enumerate(texts))
        path.write_text("\n".join(lines) + "\n")
        count = iter(range(1 << 30))

        def whole() -> None:
            options_ = EncodeOptions(workers=0)
            quiet = Progress(model, quiet=True)
            encode_corpus(model, Corpus([path]), Path(folder, f"store{next(count)}"), options_, quiet)

        variants = {"equal": lambda: forward_only(equal), "real": lambda: forward_only(prepared), "whole": whole}
        seconds = take_turns(variants, options.rounds)
    tokens, total = int(prepared.lengths.sum()), seconds["whole"]
    return [
        ["end to end / packed forward", f"{seconds['equal'] / total:.3f}", f"{options.dtype}, {tokens} tokens"],
        ["end to end / forward over these texts", f"{seconds['real'] / total:.3f}", "same batches"],
        ["tokens/s end to end", f"{tokens / total:,.0f}", f"{len(texts) / total:.1f} passages/s"],
    ]


def equal_rows(prepared: Prepared) -> Prepared:
    """The same number of texts and tokens, with every text of the mean length: the input of perfect packing."""
    lengths = prepared.ids.lengths
    mean = int(np.ceil(lengths.mean()))
    ids = np.resize(prepared.ids.values, mean * len(lengths))
    bounds = np.arange(len(lengths) + 1, dtype=np.int64) * mean
    return Prepared(prepared.layout, Ragged(ids, bounds), prepared.content)


def word_tokenizer(words: Sequence[str], most: int) -> Any:
    """A tokenizer with one token per word, at most ``most`` of them, and a plain chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<unk>", "<mask>", "<eos>", '"', "<|im_end|>", *sorted(set(words))][:most]
    core = Tokenizer(models.WordLevel({name: i for i, name in enumerate(dict.fromkeys(names))}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", mask_token="<mask>", eos_token="<eos>", pad_token="<eos>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return tokenizer


def dream_shaped(layers: int, folder: Path, k: int) -> DiffRetriever:
    """A narrow random Qwen2 with Dream's vocabulary size; its tokenizer has the words of the test texts."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = word_tokenizer(" ".join(passages(2000)).lower().split(), SIZES["vocab_size"])
    config = Qwen2Config(
        **SIZES | {"num_hidden_layers": layers}, num_attention_heads=4, num_key_value_heads=4, rope_theta=1e6
    )
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    raw = json.loads((folder / "config.json").read_text())
    raw |= {"model_type": "Dream", "mask_token_id": 1, "rope_theta": 1e6}
    (folder / "config.json").write_text(json.dumps(raw))
    return DiffRetriever.from_pretrained(
        str(folder), k_query=k, k_passage=k, max_length=192, cut_at_stop=False, impact_rounding="nearest"
    )


def straightforward(
    model: DiffRetriever, texts: Sequence[str], passes: int, sort: bool, head_rows: str, batch_size: int = 32
) -> None:
    """Encode in the straightforward way; each of our savings can be switched on alone."""
    import torch

    prepared = model.prepare(texts, "passage")
    layout, head = prepared.layout, model._backbone.head
    order = np.argsort(-prepared.lengths) if sort else np.arange(len(texts))
    for _ in range(passes):
        for start in range(0, len(order), batch_size):
            rows = [layout.assemble(prepared.ids[i].tolist()) for i in order[start : start + batch_size]]
            width = max(map(len, rows))
            ids = torch.tensor([[layout.pad_id] * (width - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            with torch.inference_mode():
                states = model._backbone.hidden_states(ids, mask, layout.k + len(layout.tail))
                end = width - len(layout.tail)
                chosen = slice(end - layout.k, end)
                logits = head(states)[:, chosen] if head_rows == "all" else head(states[:, chosen])
                vectors = torch.nn.functional.normalize(states[:, chosen], dim=2).numpy()
                for row, i in enumerate(order[start : start + batch_size]):
                    _ = vectors[row].mean(0).tolist()
                    assert prepared.content is not None
                    weights = torch.log1p(torch.relu(logits[row])).amax(0)
                    _ = {int(term): int(100 * weights[term]) for term in prepared.content[i]}


def naive(options: argparse.Namespace) -> Rows:
    """Ours against the straightforward implementation: time and memory."""
    texts = passages(min(options.texts, 96))
    with tempfile.TemporaryDirectory() as folder:
        model = dream_shaped(options.layers, Path(folder), k=4)
        blocks, head = block_parameters(model), model.dimension * model.vocab_size
        prepared = model.prepare(texts, "passage")

        def variant(passes: int = 2, sort: bool = False, head_rows: str = "all") -> Callable[[], None]:
            return lambda: straightforward(model, texts, passes, sort, head_rows)

        variants = {
            "straightforward": variant(),
            "one pass": variant(passes=1),
            "sorted": variant(sort=True),
            "head on K rows": variant(head_rows="k"),
            "ours": lambda: model.represent(prepared, token_budget=TOKEN_BUDGETS["cpu"]),
        }
        straightforward(model, texts[:2], 1, True, "k")  # a short warm-up, since a variant takes a minute
        seconds = take_turns(variants, max(1, options.rounds - 2), warm_up=0)
        peaks = {name: peak_memory(folder, name) for name in ("straightforward", "ours")}
    slow = seconds.pop("straightforward")
    how = f"{options.layers} layers, H = {model.dimension}, blocks {blocks / 1e6:.0f} M = {blocks / head:.1f} x head"
    rows = [[f"{name}: times faster", f"{slow / value:.2f}", how] for name, value in seconds.items()]
    share = peaks["ours"] / peaks["straightforward"]
    rows.append(["peak memory above the weights", f"{share:.3f}", f"{peaks['ours']} of {peaks['straightforward']} MiB"])
    return rows


def peak_memory(folder: str, function: str) -> int:
    """Peak MiB of one call of ``function`` above the loaded model, in a separate process (Linux).

    Sampled from RssAnon, since pages of the weights' file are loaded and dropped by the system.
    """
    code = f"""
import re, sys, threading, time
from pathlib import Path
sys.path.insert(0, "benchmarks")
import encode
from diffretriever_pyserini import DiffRetriever
settings = {{"k_query": 4, "k_passage": 4, "max_length": 192, "cut_at_stop": False, "impact_rounding": "nearest"}}
model = DiffRetriever.from_pretrained({folder!r}, **settings)
texts = encode.passages(32)
prepared = model.prepare(texts, "passage")
def memory():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
def ours(inputs):
    model.represent(inputs, token_budget={TOKEN_BUDGETS["cpu"]})
def straightforward(texts):
    encode.straightforward(model, texts, 1, False, "all")
ours(model.prepare(texts[:1], "passage"))
straightforward(texts[:1])
before, samples = memory(), []
def watch():
    while True:
        samples.append(memory())
        time.sleep(0.002)
threading.Thread(target=watch, daemon=True).start()
{function}({"prepared" if function == "ours" else "texts"})
print(max(samples) - before)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def k(options: argparse.Namespace) -> Rows:
    """K = 16 against K = 1: time and arithmetic, for the chosen encoder and for a Dream-shaped one."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        dream_shaped(options.layers, Path(folder), k=1)
        shaped = {"max_length": 192, "cut_at_stop": False, "impact_rounding": "nearest"}
        for name, target, settings, count in (
            (options.encoder, options.encoder, {}, options.texts),
            ("Dream-shaped", folder, shaped, min(options.texts, 24)),
        ):
            settings = settings | {"device": options.device, "dtype": options.dtype}
            models = {k: DiffRetriever.from_pretrained(target, k_passage=k, **settings) for k in (1, 16)}
            prepared = {k: model.prepare(passages(count), "passage") for k, model in models.items()}
            budget = TOKEN_BUDGETS[options.device.partition(":")[0]]
            variants: dict[str, Callable[[], Any]] = {
                f"K = {k}": partial(models[k].represent, prepared[k], token_budget=budget) for k in models
            }
            seconds = take_turns(variants, options.rounds)
            flops = {k: 2 * block_parameters(models[k]) * int(prepared[k].lengths.sum()) for k in models}
            time_ratio, flop_ratio = seconds["K = 16"] / seconds["K = 1"], flops[16] / flops[1]
            rows += [
                [f"{name}: time of K = 16 / K = 1", f"{time_ratio:.3f}", f"arithmetic: {flop_ratio:.3f}"],
                [f"{name}: time ratio / arithmetic ratio", f"{time_ratio / flop_ratio:.3f}", "1.05 is the aim"],
            ]
    return rows


def memory(options: argparse.Namespace) -> Rows:
    """Peak memory of the commands encode, index and search for many passages against few."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.model.conftest import save_masked_lm  # the small random model of the tests

    words = " ".join(passages(200)).split()
    peaks: dict[str, dict[int, int]] = {}
    seconds: dict[str, dict[int, float]] = {}
    counts = (options.passages // 100, options.passages)
    with tempfile.TemporaryDirectory() as folder:
        save_masked_lm(Path(folder, "model"))
        queries = "".join(f"{i}\t{' '.join(words[9 * i : 9 * i + 5])}\n" for i in range(200))
        Path(folder, "T.tsv").write_text(queries, encoding="utf-8")
        for count in counts:
            path = Path(folder, f"{count}.jsonl")
            rng = np.random.default_rng(count)
            with path.open("w") as file:
                for i in tqdm(range(count), desc="writing passages", disable=None):
                    start = int(rng.integers(len(words) - 30))
                    text = " ".join(words[start : start + int(rng.integers(5, 30))])
                    file.write(json.dumps({"id": str(i), "text": f"{text} {i}"}) + "\n")
            store, index = f"{folder}/store{count}", f"{folder}/index{count}"
            encode = f"encode --encoder diffretriever:{folder}/model --corpus {path} --output {store} --workers 2"
            steps = {
                "encode": f"{encode} --max-length 40 --quiet",
                "index, lexical": f"index --store {store} --output {index} --lexical --quiet",
                "index, sq8": f"index --store {store} --output {index}.sq8 --dense sq8 --quiet",
                "index, ivfpq": f"index --store {store} --output {index} --dense ivfpq --quiet",
                "search, hybrid": f"search --index {index} --topics {folder}/T.tsv --output {folder}/run{count}.txt",
            }
            for name, command in steps.items():
                started = time.perf_counter()
                mebibytes = measured([sys.executable, "-m", "diffretriever_pyserini", *command.split()])
                peaks.setdefault(name, {})[count] = mebibytes
                seconds.setdefault(name, {})[count] = time.perf_counter() - started
                print(f"{count:,} {name}: {mebibytes} MiB, {seconds[name][count]:.1f} s", flush=True)
    few, many = counts
    rows: Rows = []
    for name, peak in peaks.items():
        how = f"{peak[many]} MiB against {peak[few]}; {many:,} passages in {seconds[name][many]:,.0f} s"
        rows.append([f"peak memory of {name}, many / few passages", f"{peak[many] / peak[few]:.3f}", how])
    return rows


def measured(command: list[str]) -> int:
    """Run a command; the largest resident memory of any one of its processes in MiB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def queries(options: argparse.Namespace) -> Rows:
    """Encoding for a hybrid search: one shared pass against two separate encoders."""
    from diffretriever_pyserini.pyserini_api.encoders import DiffRetrieverQueryEncoder

    words = " ".join(passages(2000)).split()  # enough for distinct queries, since encoders cache them
    starts = range(0, len(words) - 8 * 64, 8 * 64)
    batches = iter([" ".join(words[i : i + 8]) for i in range(j, j + 8 * 64, 8)] for j in starts)
    first = DiffRetrieverQueryEncoder(options.encoder, device=options.device)
    second = DiffRetriever.from_pretrained(first.name.target, device=options.device)

    def shared() -> None:
        texts = next(batches)
        first.encode_batch(texts)
        for text in texts:
            first.lexical.encode(text)

    def separate() -> None:
        texts = next(batches)
        _ = first.encode_batch(texts)
        _ = second.encode(texts, side="query").impacts

    seconds = take_turns({"shared": shared, "separate": separate}, options.rounds * 3)
    return [["encoding in hybrid / two encoders", f"{seconds['shared'] / seconds['separate']:.3f}", "0.55 is the aim"]]


BENCHMARKS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "bare": bare,
    "naive": naive,
    "k": k,
    "memory": memory,
    "queries": queries,
}

if __name__ == "__main__":
    main()
