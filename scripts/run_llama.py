"""Train a tiny Llama, quantize and prune it with every method, and write the perplexities before and after.

Trained on plain English Wikipedia (TRAIN/train.txt, with TRAIN/valid.txt to choose the checkpoint), calibrated on
blocks of the same training text, tested once on the test split of WikiText-2 (DATA/test.raw.txt), of which no article
is in TRAIN. Whatever exists below --runs is not made again; a stopped training goes on.

    python scripts/run_llama.py --data DIR/wikitext2 --train DIR/wiki_en --out docs/llama_wikitext2.md
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from llama_model import LENGTH, perplexity, train
from transformers import AutoTokenizer

import lit_compress
from lit_compress.benchmark.folders import weight_bytes
from lit_compress.data.token_blocks import token_blocks

_FOUR, _THREE = ("--bits", "4"), ("--bits", "3")
_GROUPS = ("--group-size", "32")
#: Name in the table, whether texts are needed, the model that it starts from, and the words of the command line.
ROWS: dict[str, tuple[bool, str, tuple[str, ...]]] = {
    "nearest, int4 per channel": (False, "model", ("quantize", "--method", "nearest", *_FOUR)),
    "GPTQ, int4 per channel": (True, "model", ("quantize", "--method", "gptq", *_FOUR)),
    "AWQ, int4 per channel": (True, "model", ("quantize", "--method", "awq", *_FOUR)),
    "nearest, int4 in groups of 32": (False, "model", ("quantize", "--method", "nearest", *_FOUR, *_GROUPS)),
    "GPTQ, int4 in groups of 32": (True, "model", ("quantize", "--method", "gptq", *_FOUR, *_GROUPS)),
    "AWQ, int4 in groups of 32": (True, "model", ("quantize", "--method", "awq", *_FOUR, *_GROUPS)),
    "NF4": (False, "model", ("quantize", "--method", "nf4")),
    "nearest, int3 in groups of 32": (False, "model", ("quantize", "--method", "nearest", *_THREE, *_GROUPS)),
    "GPTQ, int3 in groups of 32": (True, "model", ("quantize", "--method", "gptq", *_THREE, *_GROUPS)),
    "AWQ, int3 in groups of 32": (True, "model", ("quantize", "--method", "awq", *_THREE, *_GROUPS)),
    "magnitude, 2:4": (False, "model", ("prune", "--method", "magnitude", "--pattern", "2:4")),
    "Wanda, 2:4": (True, "model", ("prune", "--method", "wanda", "--pattern", "2:4")),
    "SparseGPT, 2:4": (True, "model", ("prune", "--method", "sparsegpt", "--pattern", "2:4")),
    "SparseGPT, 2:4, then GPTQ, int4 in groups of 32": (
        True,
        "sparsegpt_24",
        ("quantize", "--method", "gptq", *_FOUR, *_GROUPS),
    ),
}


def folder_of(name: str) -> str:
    """Return the folder of a row: its name without what folders do not like."""
    return name.lower().replace(":", "").replace(",", "").replace(" ", "_")


def make(name: str, args: argparse.Namespace) -> str | None:
    """Call the verb of a row unless its folder is there; return the reason where it fails."""
    needs_texts, source, words = ROWS[name]
    out = args.runs / folder_of(name)
    if (out / "config.json").is_file():
        return None
    texts = ["--texts", str(args.texts)] if needs_texts else []
    command = [sys.executable, "-m", "lit_compress", words[0], str(args.runs / source), "--out", str(out)]
    command += [*words[1:], "--data", str(args.train / "train.txt"), "--length", str(LENGTH), *texts]
    print(" ".join(command[1:]), flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, flush=True)
    return None if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def judge(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return size and perplexities of a model folder as a fresh process sees them, once and for all."""
    file = folder.parent / "results" / f"{folder.name}.json"
    if file.is_file():
        return json.loads(file.read_text())
    texts = [f"valid={args.train / 'valid.txt'}={args.valid_blocks}"]
    texts += [f"test={args.data / 'test.raw.txt'}={args.test_blocks}"]
    command = [sys.executable, str(Path(__file__).with_name("llama_model.py")), str(folder), *texts]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    # The same folder in this process has to say the same.
    blocks = token_blocks(args.train / "valid.txt", AutoTokenizer.from_pretrained(folder), LENGTH)
    here = perplexity(lit_compress.load(folder), blocks[: args.valid_blocks])
    found |= {"reloads": math.isclose(here, found["valid"], rel_tol=1e-6), "bytes": weight_bytes(folder)}
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(found))
    return found


def table(results: dict[str, dict[str, Any] | str], args: argparse.Namespace, facts: dict[str, Any]) -> str:
    """Return the Markdown page."""
    full: Any = results["float32"]
    lines = [
        "| model | size | × of float32 | perplexity, valid | perplexity, test | reloads |",
        "|---|--:|--:|--:|--:|---|",
    ]
    for name, row in results.items():
        if isinstance(row, str):
            lines.append(f"| {name} | – | – | – | – | {row} |")
            continue
        share = row["bytes"] / full["bytes"]
        lines.append(
            f"| {name} | {row['bytes'] / 1e6:.2f} MB | {share:.3f} | {row['valid']:.2f} | {row['test']:.2f} | "
            f"{'yes' if row['reloads'] else 'NO'} |"
        )
    head = (
        f"A Llama of {facts['parameters'] / 1e6:.2f} M parameters (4 blocks of width 256, 8 heads of queries and 4 of "
        f"keys and values, {facts['vocabulary']:,} byte-level word pieces), trained from scratch for {args.steps:,} "
        f"steps of 16 × {LENGTH} tokens of English Wikipedia. Calibrated with {args.texts} blocks of {LENGTH} tokens of"
        f" the training text. Perplexity per word piece in windows of {LENGTH} tokens: `valid`: the first "
        f"{args.valid_blocks} blocks of held-out articles, by which the checkpoint was chosen; `test` the first "
        f"{args.test_blocks} blocks of the test split of WikiText-2, whose articles and notation (`@-@`, headings in "
        "`=`) the model has never seen, evaluated once. Sizes are those of all weights on disk; embeddings have 8 bits "
        "where projections are rounded. Zeros are stored as any other weight."
    )
    return (
        f"# A tiny Llama on WikiText-2\n\n{head}\n\n"
        + "\n".join(lines)
        + "\n\n`reloads`: a fresh process that loads the folder finds the same perplexity. Made by "
        "`python scripts/run_llama.py --data DIR/wikitext2 --train DIR/wiki_en`.\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with test.raw.txt")
    parser.add_argument(
        "--train", type=Path, help="folder with train.txt and valid.txt (default: wiki_en beside it)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/llama"), help="where everything is kept")
    parser.add_argument("--out", type=Path, default=Path("docs/llama_wikitext2.md"), help="the page")
    parser.add_argument("--steps", type=int, default=700, help="optimizer steps")
    parser.add_argument("--texts", type=int, default=64, help="blocks to calibrate with")
    parser.add_argument("--valid-blocks", type=int, default=128, help="blocks of the held-out articles")
    parser.add_argument("--test-blocks", type=int, default=512, help="blocks of the test split")
    args = parser.parse_args()
    args.train = args.train or args.data.parent / "wiki_en"
    torch.set_num_threads(1)
    model = lit_compress.load(train(args.train, args.runs, args.steps))
    facts = {
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "vocabulary": model.config.vocab_size,
    }
    results: dict[str, dict[str, Any] | str] = {"float32": judge(args.runs / "model", args)}
    for name in ROWS:
        results[name] = make(name, args) or judge(args.runs / folder_of(name), args)
        args.out.write_text(table(results, args, facts), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
