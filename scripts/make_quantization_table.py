"""Turn the cells of scripts/run_quantization.py into a Markdown table.

`--measure` first times the seed-0 model of every row in the runtimes that can compute it, in turns with the eager
float32 teacher; run it on a quiet machine. It goes on where it was stopped. Rows that the page has already and whose
cells are not in the folder stay, and so does the teacher's where it is not measured.

    python scripts/make_quantization_table.py --measure
    python scripts/make_quantization_table.py --out docs/results_quantization.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_quantization import ROWS, accuracy
from table_cells import quality_of, spread, times, times_faster, with_earlier_rows

from lit_compress.benchmark.folders import local_folder
from lit_compress.files import read_json_lines

TEACHER = "teacher"


@dataclass(frozen=True)
class Look:
    """How a row looks in the table.

    Args:
        label: The method.
        bits: Bits of weights / embeddings / activations.
        runtimes: Runtimes that are measured; none where another row has the same files but for their numbers.
    """

    label: str
    bits: str
    runtimes: tuple[str, ...]


_INTEGERS = ("onnx-int8", "openvino-int8")
_FLOATS = ("onnx-fp32", "openvino-bf16")
LOOKS: dict[str, Look] = {
    TEACHER: Look("original", "32 / 32 / 32", ("torch-bf16", "onnx-fp32", "openvino-bf16", *_INTEGERS)),
    "bf16": Look("cast", "16 / 16 / 32", ("torch-bf16", "openvino-bf16")),
    "weights8": Look("nearest", "8 / 8 / 32", ()),
    "dynamic": Look("nearest, dynamic ranges", "8 / 8 / 8", ("onnx-int8",)),
    "static": Look("nearest, static ranges", "8 / 8 / 8", _INTEGERS),
    "qat_int8": Look("**QAT**", "8 / 8 / 8", _INTEGERS),
    "distil_qat": Look("**distillation to 3 layers + QAT**", "8 / 8 / 8", _INTEGERS),
    "distil_prune_qat": Look("**distillation + pruning + QAT**", "8 / 8 / 8", _INTEGERS),
    "w4a8_nearest": Look("nearest, groups of 32", "4 / 4 / 8", ()),
    "w4a8_gptq": Look("GPTQ, groups of 32", "4 / 4 / 8", ()),
    "qat_int4_group": Look("**QAT**, groups of 32", "4 / 4 / 8", _INTEGERS),
    "channel4_nearest": Look("nearest, per output", "4 / 8 / 8", ()),
    "channel4_gptq": Look("GPTQ, per output", "4 / 8 / 8", ()),
    "lsq_w4a8": Look("**LSQ**, per output", "4 / 8 / 8", _INTEGERS),
    "nf4": Look("bitsandbytes NF4", "4 / 32 / 32", ("torch-fp32",)),
    "mixed_nearest": Look("nearest, bits by Q-BERT", "2-4 / 8 / 8", ()),
    "uniform3_nearest": Look("nearest, 3 bits for all", "3 / 8 / 8", ()),
    "mixed_gptq": Look("GPTQ, bits by Q-BERT", "2-4 / 8 / 8", ()),
    "uniform3_gptq": Look("GPTQ, 3 bits for all", "3 / 8 / 8", ()),
    "uniform3": Look("**QAT**, 3 bits for all", "3 / 8 / 8", _INTEGERS),
    "qbert_mixed": Look("**Q-BERT**, bits by sensitivity", "2-4 / 8 / 8", _INTEGERS),
    "uniform3_ranges": Look("**QAT** without learned steps, 3 bits for all", "3 / 8 / 8", ()),
    "qbert_ranges": Look("**Q-BERT** without learned steps", "2-4 / 8 / 8", ()),
    **{
        f"kmeans{k}_nearest": Look(f"k-means, {k} values", f"{b} / {b} / 32", ())
        for k, b in ((256, 8), (16, 4), (8, 3))
    },
    **{
        f"kmeans{k}": Look(f"**clustering**, {k} values", f"{b} / {b} / 32", _FLOATS)
        for k, b in ((256, 8), (16, 4), (8, 3))
    },
    "kmeans_int8_hybrid": Look("**clustering**, 16 values of 8 bits", "4 / 4 / 32", _FLOATS),
}


def collect(runs: Path, teacher: Path) -> dict[str, list[dict[str, Any]]]:
    """Finished cells by row, in the order of the table."""
    # It was judged in bfloat16 while it was trained, and the others in float32.
    known = runs / "teacher.json"
    if not known.is_file():
        known.write_text(json.dumps({"dev": accuracy(teacher, teacher.parent / "config.yaml", "validation")}))
    rows = {TEACHER: [cell(teacher.parent) | json.loads(known.read_text())]}
    for name in (name for name in LOOKS if name in ROWS):
        folders = [runs / f"{name}-seed{seed}" for seed in ROWS[name].seeds]
        found = [cell(folder) for folder in folders if (folder / "test_metrics.json").is_file()]
        if found:
            rows[name] = found
    if len(rows) == 1:
        raise SystemExit(
            f"Expected finished cells in {runs} but found none; run scripts/run_quantization.py first."
        )
    return rows


def cell(folder: Path) -> dict[str, Any]:
    """Quality and size of a finished run."""
    found = quality_of(folder)
    files = (path for path in found["folder"].rglob("*") if path.is_file())
    return {**found, "bytes": sum(path.stat().st_size for path in files)}


def measure(rows: dict[str, list[dict[str, Any]]], teacher: Path, out: Path) -> None:
    """Benchmark seed 0 of every row; those with the same runtimes take turns with each other."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, found in rows.items():
        if LOOKS[name].runtimes:
            groups.setdefault(LOOKS[name].runtimes, []).append(str(found[0]["folder"]))
    for runtimes, folders in groups.items():
        words = [
            "benchmark",
            *folders,
            f"--against={teacher}",
            f"--runtimes={','.join(runtimes)}",
            f"--out={out}",
        ]
        subprocess.run([sys.executable, "-m", "lit_compress", *words], check=False)


def fastest(out: Path) -> dict[str, dict[str, Any]]:
    """The row of the runtime with the least latency, by the run that was measured."""
    measured: dict[tuple[str, str], dict[str, Any]] = {}
    for row in read_json_lines(out):
        if not row["is_baseline"] and (row.get("ratio") or {}).get("cpu_latency") is not None:
            # The teacher takes part in every session: its first row counts, not its best one.
            measured.setdefault((str(row["run"]).removesuffix("/model"), row["runtime"]), row)
    found: dict[str, dict[str, Any]] = {}
    for (run, _), row in measured.items():
        best = found.get(run)
        if best is None or row["ratio"]["cpu_latency"]["median"] < best["ratio"]["cpu_latency"]["median"]:
            found[run] = row
    return found


def table(rows: dict[str, list[dict[str, Any]]], measured: dict[str, dict[str, Any]]) -> str:
    """The Markdown table."""
    columns = ("method", "weights / embeddings / activations", "seeds", "folder", "of the original")
    speed = ("fastest runtime", "CPU latency, batch 1", "speed-up, batch 1", "32 at once")
    header = f"| {' | '.join((*columns, *speed))} | dev | test |"
    return "\n".join([header, "|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|", *_lines(rows, measured)])


def _lines(rows: dict[str, list[dict[str, Any]]], measured: dict[str, dict[str, Any]]) -> Iterator[str]:
    full = rows[TEACHER][0]["bytes"]
    for name, cells in rows.items():
        if name == TEACHER and not measured:
            continue
        look, first = LOOKS[name], cells[0]
        dev, test = (spread([each[split] for each in cells]) for split in ("dev", "test"))
        run = first["folder"].parent.resolve()
        size = f"{first['bytes'] / 1e6:.1f} MB | {first['bytes'] / full:.3f}×"
        figures = " | ".join(_figures(measured.get(str(run))))
        yield f"| {look.label} | {look.bits} | {len(cells)} | {size} | {figures} | {dev} | {test} |"


def _figures(row: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if row is None:
        return "–", "–", "–", "–"
    ratio, latency = row["ratio"], row["cpu"]["latency_ms"]["p50"]
    faster = times_faster(ratio["cpu_latency"]), times(ratio["cpu_throughput_32"])
    return row["runtime"], f"{latency:.2f} ms", *faster


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/quantization"), help="cells (%(default)s)")
    parser.add_argument("--teacher", type=Path, default=Path("runs/sst2_sentences/teacher/model"))
    parser.add_argument("--measure", action="store_true", help="measure speed first")
    parser.add_argument("--out", type=Path, help="put the rows into the table of this file")
    args = parser.parse_args()
    rows, results = collect(args.runs, local_folder(str(args.teacher))), args.runs / "speed.jsonl"
    if args.measure:
        measure(rows, args.teacher, results)
    text = table(rows, fastest(results))
    if args.out and args.out.is_file():
        text = with_earlier_rows(text, args.out.read_text(encoding="utf-8"), key=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
