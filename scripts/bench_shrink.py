"""Measure how much of its lost FLOPs a shrunk model is faster by, and write docs/bench_shrink.md.

A model of MiniLM's size (6 layers, width 384, 12 heads, 1536 neurons, random weights) is cut to 2, 4 and 8 times
fewer encoder FLOPs: evenly, to a number of heads and neurons per layer that is drawn at random (uneven), or so with
fewer layers too; each with the neurons as they come and rounded up to multiples of 16, 32 and 64. Every model is
measured by the library's benchmark, in a clean process of its own, in turns with the full model and with one that has
no blocks at all; what that one takes is taken off to get the encoder's own time. FLOPs are those of the matrix
products of the encoder, attention scores included, for texts of 128 tokens, counted by torch.

Every session is appended to a file below --runs-dir as soon as it is finished; the same command goes on from there:

    python scripts/bench_shrink.py
    python scripts/bench_shrink.py --ratios 8 --rounds 3 --runs-dir /tmp/try --out /tmp/try.md
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from bench_pages import Record, machine, own_sessions, write_page
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from lit_compress.benchmark.environment import load_average
from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.results import append_rows, to_row
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.depth import drop_blocks
from lit_compress.pruning.shape import cut_further

LAYERS, WIDTH, HEADS, NEURONS, LENGTH = 6, 384, 12, 1536, 128
#: Least share of the FLOP ratio that the encoder is faster by.
TARGETS = {"batch": 0.85, "single": 0.70}
KINDS = {"even": "even", "uneven": "uneven", "fewer": "uneven, fewer"}
ROUNDINGS = (1, 16, 32, 64)
#: Lengths of typical sentences (SST-2: 19 ± 9 words, in pieces of words).
REAL = tuple(int(n) for n in np.clip(np.random.default_rng(0).normal(23, 11, 24), 5, 60))
Shape = list[tuple[int, int]]


@dataclass(frozen=True)
class Session:
    """Models that are measured in turns.

    Args:
        ratio: How many times fewer FLOPs.
        kind: One of ``KINDS``.
        lengths: ``fixed`` (128 tokens) or ``real``.
    """

    ratio: int
    kind: str
    lengths: str


def sizes(ratio: float, kind: str, seed: int) -> Shape:
    """Return heads and neurons per layer that have ``1 / ratio`` of the encoder's multiplications.

    Args:
        ratio: How many times fewer.
        kind: ``even``; ``uneven``: layers have 0.2 to 1.8 times the average, drawn at random; ``fewer``: uneven, and
            ``6 / sqrt(ratio)`` layers.
        seed: Seed of the draw.
    """
    draw = np.random.default_rng(seed)
    layers = round(LAYERS / ratio**0.5) if kind == "fewer" else LAYERS
    shares = np.ones((2, layers)) if kind == "even" else draw.uniform(0.2, 1.8, (2, layers))
    # Of what each of the layers that are left has to lose.
    ratio *= layers / LAYERS
    heads = [int(np.clip(round(HEADS / ratio * share), 0, HEADS)) for share in shares[0]]
    if kind == "even":
        heads = [max(1, round(HEADS / ratio))] * layers
    rest = _products([(HEADS, NEURONS)] * layers) / ratio - _products([(count, 0) for count in heads])
    neurons = rest / (2 * WIDTH) * shares[1] / shares[1].sum()
    return [(count, int(min(NEURONS, wide))) for count, wide in zip(heads, neurons, strict=True)]


def _products(shape: Shape) -> float:
    """Return the multiplications per token; the script counts the real ones of the models again."""
    width = WIDTH // HEADS
    return float(sum(h * width * (4 * WIDTH + 2 * LENGTH) + 2 * WIDTH * n for h, n in shape))


def rounded(shape: Shape, step: int) -> Shape:
    """Return a shape with neurons rounded up to a multiple."""
    return [(heads, min(NEURONS, -(-neurons // step) * step)) for heads, neurons in shape]


def build(shape: Shape | None = None) -> BertForSequenceClassification:
    """Return the model, cut to a shape; ``None`` for one without blocks."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS if shape is not None else 0,
        num_attention_heads=HEADS,
        intermediate_size=NEURONS,
    )
    model = BertForSequenceClassification(config).eval()
    drop_blocks(
        model, [f"bert.encoder.layer.{layer}" for layer in range(len(shape or []), LAYERS if shape else 0)]
    )
    units = {}
    for layer, (heads, neurons) in enumerate(shape or []):
        path = f"bert.encoder.layer.{layer}"
        if heads < HEADS:
            units[f"{path}.attention.self.head"] = list(range(heads))
        if neurons < NEURONS:
            units[f"{path}.intermediate.neuron"] = list(range(neurons))
    cut_further(model, units)
    return model


def flops(model: BertForSequenceClassification) -> int:
    """Return the FLOPs of the encoder's matrix products for one text of 128 tokens."""
    model.requires_grad_(False).set_attn_implementation("eager")
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.bert.encoder(torch.zeros(1, LENGTH, WIDTH))
    return counter.get_total_flops()


def run(session: Session, args: argparse.Namespace) -> Record:
    """Measure a session."""
    base = sizes(session.ratio, session.kind, args.seed)
    shapes = {f"round to {step}": rounded(base, step) for step in ROUNDINGS}
    full = [(HEADS, NEURONS)] * LAYERS
    with tempfile.TemporaryDirectory() as root:

        def candidate(name: str, shape: Shape | None) -> Candidate:
            folder = save_folder(Path(root) / name.replace(" ", "_"), build(shape), None, {})
            return Candidate(name, str(folder))

        lengths = (LENGTH,) * 16 if session.lengths == "fixed" else REAL
        protocol = Protocol(
            lengths,
            batches=(32,),
            fixed_lengths=(),
            rounds=args.rounds,
            max_seconds=args.seconds,
            devices=("cpu",),
            seed=args.seed,
        )
        candidates = [candidate("no blocks", None), *(candidate(n, s) for n, s in shapes.items())]
        load = load_average()
        measured = measure(candidates, candidate("full", full), protocol)
    return {
        **asdict(session),
        "seed": args.seed,
        "load": load,
        "flops": {
            "full": flops(build(full)),
            **{name: flops(build(shape)) for name, shape in shapes.items()},
        },
        "shapes": shapes,
        "rows": [to_row(found, "scripts/bench_shrink.py") for found in measured],
    }


# -- the page --------------------------------------------------------------------------------------


def seconds(row: Record, size: str) -> float:
    """Return milliseconds per call of a row: of a single text, or of a batch."""
    if size == "single":
        return row["cpu"]["latency_ms"]["p50"]
    return 1000 * 32 / row["cpu"]["throughput"]["32"]["texts_per_second"]


def figures(record: Record, name: str, size: str) -> dict[str, float]:
    """Return the FLOP ratio, and the speed-up of the model and of its encoder, of one model of a session."""
    rows = {row["model"]: row for row in record["rows"]}
    full, small, rest = (seconds(rows[key], size) for key in ("full", name, "no blocks"))
    ratio = record["flops"]["full"] / record["flops"][name]
    key = "cpu_latency" if size == "single" else "cpu_throughput_32"
    found = rows[name]["ratio"][key]["median"]
    encoder = (full - rest) / (small - rest)
    return {
        "flops": ratio,
        "model": 1 / found if size == "single" else found,
        "encoder": encoder,
        "ms": small,
    }


def table(records: Sequence[Record], lengths: str, size: str) -> str:
    """Return the Markdown table of one batch size."""
    head = (
        "| FLOPs | layers | neurons | FLOP ratio | ms | model faster | encoder faster | of the FLOP ratio |"
    )
    lines = [head, "|--:|---|---|--:|--:|--:|--:|--:|"]
    for record in sorted(records, key=lambda record: (record["ratio"], record["kind"])):
        if record["lengths"] != lengths:
            continue
        for name in record["shapes"]:
            found = figures(record, name, size)
            share = found["encoder"] / found["flops"]
            met = "" if lengths != "fixed" else " ✓" if share >= TARGETS[size] else " ✗"
            neurons = "as they come" if name == "round to 1" else name.replace("round", "rounded")
            cells = [f"1/{record['ratio']}", KINDS[record["kind"]], neurons, f"{found['flops']:.2f}×"]
            cells += [f"{found['ms']:.2f}", f"{found['model']:.2f}×", f"{found['encoder']:.2f}×"]
            lines.append(f"| {' | '.join(cells)} | {share:.2f}{met} |")
    return "\n".join(lines)


def rounding_table(records: Sequence[Record]) -> str:
    """Return the Markdown table of what rounding brings: geometric means over the sessions of each kind."""
    head = "| layers | neurons | FLOPs | time, batch 32 | time, one text |"
    lines = [head, "|---|---|--:|--:|--:|"]
    for kind, layers in KINDS.items():
        mine = [record for record in records if (record["kind"], record["lengths"]) == (kind, "fixed")]
        for step in ROUNDINGS[1:] if mine else ():
            name = f"round to {step}"
            cells = [_mean(record["flops"][name] / record["flops"]["round to 1"] for record in mine)]
            for size in TARGETS:
                pairs = [
                    [figures(record, key, size)["ms"] for key in (name, "round to 1")] for record in mine
                ]
                cells.append(_mean(rounded_ms / ms for rounded_ms, ms in pairs))
            lines.append(
                f"| {layers} | rounded to {step} | {' | '.join(f'{cell - 1:+.1%}' for cell in cells)} |"
            )
    return "\n".join(lines)


def _mean(ratios: Iterable[float]) -> float:
    """Return the geometric mean of ratios."""
    return float(np.exp(np.mean(np.log(list(ratios)))))


def page(records: Sequence[Record]) -> list[str]:
    """Return the blocks of the document."""
    shapes = "\n".join(
        f"- 1/{r['ratio']}: " + ", ".join(f"{heads} heads {neurons} neurons" for heads, neurons in shape)
        for r in records
        if r["kind"] != "even" and r["lengths"] == "fixed"
        for shape in [r["shapes"]["round to 1"]]
    )
    parts = [
        "# How much faster a shrunk model is",
        "Made by `scripts/bench_shrink.py`, see `--help`, which also says what is counted as FLOPs. *Encoder faster* "
        "is the time of the full model over that of the shrunk one, both without what a model without blocks takes; "
        "*model faster* is with it. Medians of rounds in turns, each model in a clean process.",
        machine(records),
    ]
    titles = {
        (
            "fixed",
            "batch",
        ): f"Batches of 32 texts of {LENGTH} tokens (target: at least {TARGETS['batch']:.2f})",
        ("fixed", "single"): f"One text of {LENGTH} tokens (target: at least {TARGETS['single']:.2f})",
        ("real", "batch"): "Batches of 32 sentences, for comparison",
        ("real", "single"): "One sentence, for comparison",
    }
    for (lengths, size), title in titles.items():
        if any(record["lengths"] == lengths for record in records):
            parts.append(f"## {title}\n\n{table(records, lengths, size)}")
    parts.append(f"## What rounding brings\n\n{rounding_table(records)}")
    return [*parts, f"## Uneven layers\n\n{shapes}" if shapes else ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ratios", default="2,4,8", help="times fewer FLOPs (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of a session (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=90.0, help="budget of a session (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of uneven layers (default: %(default)s)")
    parser.add_argument("--runs-dir", default="runs/bench_shrink", help="default: %(default)s")
    parser.add_argument("--out", default="docs/bench_shrink.md", help="the page (default: %(default)s)")
    args = parser.parse_args()
    file, out = Path(args.runs_dir) / "sessions.jsonl", Path(args.out)
    records = own_sessions(file)
    done = {(r["ratio"], r["kind"], r["lengths"], r["seed"]) for r in records}
    for lengths in ("fixed", "real"):
        for ratio in map(int, args.ratios.split(",")):
            for kind in KINDS if lengths == "fixed" else ("uneven",):
                if (ratio, kind, lengths, args.seed) in done:
                    continue
                record = run(Session(ratio, kind, lengths), args)
                failed = [row["error"] for row in record["rows"] if row.get("error")]
                if failed:
                    raise SystemExit(f"1/{ratio} {kind}: {failed[0]}")
                append_rows(file, [record])
                records.append(record)
                write_page(out, page([r for r in records if r["seed"] == args.seed]))
                print(f"1/{ratio} {kind} {lengths}: wrote {out}", flush=True)
    if records:
        write_page(out, page([r for r in records if r["seed"] == args.seed]))


if __name__ == "__main__":
    main()
