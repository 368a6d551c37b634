r"""Calibrate the Llama of scripts/run_llama.py with `lit-compress` and with llm-compressor, on the same blocks of text.

llm-compressor lives in an environment of its own, see scripts/llm_compressor_worker.py. Both round and prune the
projections of the blocks only. *Same weights* counts those that end within a hundredth of the standard deviation of
their matrix, less than any step of a grid; perplexities are those of held-out articles, with both sets of weights in
the same model. What exists below --work is not made again.

    python scripts/compare_llm_compressor.py --oracle ORACLE/bin/python --model runs/llama/model --data DIR/wiki_en
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from bench_pages import write_page
from llama_model import LENGTH, perplexity
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer

import lit_compress
from lit_compress.data.token_blocks import token_blocks
from lit_compress.quantization.text_file import TextFile

_KEEP = ("--exclude", "lm_head", "embed_tokens")
_GPTQ = (
    "GPTQModifier: {{ignore: [lm_head], config_groups: {{all: {{targets: [Linear], weights: "
    "{{num_bits: {bits}, type: int, symmetric: false, {shared}}}}}}}}}"
)
_CHANNEL, _GROUPS = "strategy: channel", "strategy: group, group_size: 32"
#: Name in the table: the words of our command, and the recipe of theirs.
ROWS: dict[str, tuple[tuple[str, ...], str]] = {
    "GPTQ, 4 bits per channel": (
        ("quantize", "--method=gptq", "--bits=4", "--zero-points", *_KEEP),
        _GPTQ.format(bits=4, shared=_CHANNEL),
    ),
    "GPTQ, 4 bits in groups of 32": (
        ("quantize", "--method=gptq", "--bits=4", "--group-size=32", "--zero-points", *_KEEP),
        _GPTQ.format(bits=4, shared=_GROUPS),
    ),
    "GPTQ, 3 bits per channel": (
        ("quantize", "--method=gptq", "--bits=3", "--zero-points", *_KEEP),
        _GPTQ.format(bits=3, shared=_CHANNEL),
    ),
    "SparseGPT, 2:4": (
        ("prune", "--method=sparsegpt", "--pattern=2:4"),
        "SparseGPTModifier: {ignore: [lm_head], sparsity: 0.5, mask_structure: '2:4'}",
    ),
    "SparseGPT, half": (
        ("prune", "--method=sparsegpt", "--sparsity=0.5"),
        "SparseGPTModifier: {ignore: [lm_head], sparsity: 0.5}",
    ),
    "Wanda, 2:4": (
        ("prune", "--method=wanda", "--pattern=2:4"),
        "WandaPruningModifier: {ignore: [lm_head], sparsity: 0.5, mask_structure: '2:4'}",
    ),
}


def ours(words: tuple[str, ...], out: Path, args: argparse.Namespace) -> dict[str, Tensor]:
    """Call the verb, and return the weights as they are loaded."""
    if not (out / "config.json").is_file():
        verb, *more = words
        texts = [f"--data={args.data / 'train.txt'}", f"--length={LENGTH}", f"--texts={args.texts}"]
        command = [sys.executable, "-m", "lit_compress", verb, str(args.model), f"--out={out}", *texts, *more]
        subprocess.run(command, check=True)
    return weights_of(lit_compress.load(out))


def weights_of(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the matrices of the blocks."""
    return {
        name: module.weight.detach().float()
        for name, module in model.named_modules()
        if "layers." in name and getattr(getattr(module, "weight", None), "ndim", 0) == 2
    }


def theirs(recipe: str, out: Path, blocks: Path, args: argparse.Namespace) -> tuple[dict[str, Tensor], str]:
    """Let llm-compressor do it, and return the weights as it leaves them, with its version."""
    if not out.is_file():
        text = out.with_suffix(".yaml")
        text.write_text(f"oracle_stage:\n  oracle_modifiers:\n    {recipe}\n", encoding="utf-8")
        worker = str(Path(__file__).with_name("llm_compressor_worker.py"))
        subprocess.run(
            [str(args.oracle), worker, "model", str(args.model), str(blocks), str(out), str(text)], check=True
        )
    with safe_open(out, "pt") as file:
        made_by = file.metadata()["made_by"]
    found = load_file(out)
    return {name.removesuffix(".weight"): tensor for name, tensor in found.items()}, made_by


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Return the share of weights that are the same but for a hundredth of the spread of their matrix."""
    close = [(first[name] - second[name]).abs() <= second[name].std() / 100 for name in first]
    return float(torch.cat([part.flatten() for part in close]).double().mean())


@torch.no_grad()
def judged(weights: Mapping[str, Tensor], blocks: Tensor, args: argparse.Namespace) -> float:
    """Return the perplexity of the model with these matrices."""
    model = lit_compress.load(args.model)
    for name in weights_of(model):
        model.get_parameter(f"{name}.weight").copy_(weights[name])
    return perplexity(model, blocks)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--oracle", type=Path, required=True, help="python of llm-compressor's environment")
    parser.add_argument("--model", type=Path, default=Path("runs/llama/model"), help="default: %(default)s")
    parser.add_argument("--data", type=Path, required=True, help="folder with train.txt and valid.txt")
    parser.add_argument("--texts", type=int, default=64, help="blocks to calibrate with (%(default)s)")
    parser.add_argument("--valid-blocks", type=int, default=128, help="blocks to compare on (%(default)s)")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/llm_compressor"), help="where the weights go (%(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/llm_compressor.md"), help="the page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    drawn = TextFile(args.data / "train.txt", tokenizer, LENGTH).samples("student", args.texts)
    blocks = args.work / "blocks.safetensors"
    save_file({"input_ids": torch.cat([torch.from_numpy(batch["input_ids"]) for batch in drawn])}, blocks)
    valid = token_blocks(args.data / "valid.txt", tokenizer, LENGTH)[: args.valid_blocks]
    original = weights_of(lit_compress.load(args.model))
    lines = [
        "| method | same weights | perplexity here | perplexity with llm-compressor |",
        "|---|--:|--:|--:|",
        f"| float32 | – | {judged(original, valid, args):.2f} | – |",
    ]
    made_by = ""
    for name, (words, recipe) in ROWS.items():
        short = name.lower().replace(",", "").replace(":", "").replace(" ", "_")
        mine = ours(words, args.work / short, args)
        other, made_by = theirs(recipe, args.work / f"{short}.safetensors", blocks, args)
        figures = judged(mine, valid, args), judged(other, valid, args)
        lines.append(f"| {name} | {100 * same(mine, other):.2f} % | {figures[0]:.2f} | {figures[1]:.2f} |")
    head = (
        "# Beside llm-compressor\n\nMade by `scripts/compare_llm_compressor.py`, see `--help`. The tiny Llama of "
        f"[llama_wikitext2.md](llama_wikitext2.md), calibrated by both with the same {args.texts} blocks of {LENGTH} "
        f"tokens; {made_by}, in float32 on CPU. *Same weights*: of those of the blocks, within a hundredth of the "
        "standard deviation of their matrix, which is less than any step of a grid. "
        f"Perplexity on {args.valid_blocks} blocks of held-out articles."
    )
    write_page(args.out, [head, "\n".join(lines)])
    print("\n".join(lines))


if __name__ == "__main__":
    main()
