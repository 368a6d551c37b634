"""Compare models that were trained with rounding with their files for other runtimes, text by text.

Each file is built, or taken from the cache, as ``lit-compress export`` does, and predicts every text of the splits
beside the model folder in eager float32 torch, which rounds as in training. Two controls run through torch alone: the
folder in float64, and the folder with every rounded activation moved by up to one unit in the last place of float32
before it is rounded. They say what is left when all integers and scales are the same and only sums are rounded
differently: a value next to the border of two integers falls on the other side. A file that differs as they do computes
the same model. Rows that are recorded already are not computed again; those of the page, of models that
are not given, stay.

    python scripts/compare_twins.py runs/quantization/*/model --out docs/twins.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from bench_pages import NOTES, Record, write_page
from table_cells import HEAD, cells, with_earlier_rows
from torch import nn

from lit_compress import load
from lit_compress.benchmark.artefacts import BUILD_VERSION, PrepareError, prepare
from lit_compress.benchmark.candidates import texts_of_models
from lit_compress.benchmark.environment import library_version, runtime_versions
from lit_compress.benchmark.folders import display_name, local_folder, weight_fingerprint
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.quality import Texts, evaluate
from lit_compress.benchmark.results import append_rows
from lit_compress.benchmark.runtimes import runtime
from lit_compress.benchmark.runtimes.base import Batch, Session
from lit_compress.benchmark.runtimes.torch_eager import TorchSession
from lit_compress.files import read_json_lines
from lit_compress.quantization.inputs import input_quantizers_of

TWINS = ("onnx-int8", "openvino-int8", "litert-int8")
FLOAT64, NUDGED = "torch in float64", "torch, activations nudged"
_TIMEOUT = 1800.0
_COLUMNS = (
    *("Model", "Runtime", "MB", "Difference (points)", "Other label"),
    *("Same label", "Largest logit error", "Mean logit error"),
)


@dataclass(frozen=True)
class Splits(Texts):
    """The texts of several splits, one after the other.

    Args:
        splits: Their names.
    """

    splits: tuple[str, ...] = ()

    def batches(self, side: str) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Return every row once, see :meth:`Texts.batches`."""
        for texts in self._parts():
            yield from texts.batches(side)

    def describe(self) -> str:
        """Return the splits with the fingerprints of their tokens."""
        return ", ".join(texts.describe() for texts in self._parts())

    def _parts(self) -> list[Texts]:
        return [Texts(self.datamodule, split, self.task) for split in self.splits]


@dataclass(frozen=True)
class Run:
    """What a runtime said about every text.

    Args:
        value: The metric.
        logits: ``(texts, labels)``.
    """

    value: float
    logits: npt.NDArray[np.float32]


def predict_all(session: Session, texts: Texts) -> Run:
    """Predict every text.

    Args:
        session: A model in its runtime.
        texts: The texts.
    """
    found: list[npt.NDArray[np.float32]] = []

    def predict(batch: Batch) -> npt.NDArray[np.float32]:
        found.append(session.logits(session.run(session.inputs(batch))))
        return found[-1]

    return Run(evaluate(predict, texts)["value"], np.concatenate(found))


def control(folder: Path, name: str) -> TorchSession:
    """Return a model folder in torch, with sums that are rounded otherwise.

    Args:
        folder: Model folder.
        name: ``FLOAT64`` or ``NUDGED``.
    """
    model = nn.Module.float(load(folder))
    if name == FLOAT64:
        return TorchSession(nn.Module.double(model), "cpu")
    draw = torch.Generator().manual_seed(0)

    def nudge(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        step = torch.finfo(torch.float32).eps * (2 * torch.rand(inputs[0].shape, generator=draw) - 1)
        return (inputs[0] * (1 + step), *inputs[1:])

    for path, _ in input_quantizers_of(model):
        model.get_submodule(path).register_forward_pre_hook(nudge, prepend=True)
    return TorchSession(model, "cpu")


def differences(run: Run, original: Run) -> Record:
    """Return how far a runtime is from the folder.

    Args:
        run: What the runtime said.
        original: What the folder says.
    """
    error = np.abs(run.logits.astype(np.float64) - original.logits)
    other = run.logits.argmax(1) != original.logits.argmax(1)
    return {
        "texts": len(other),
        "points": 100 * (run.value - original.value),
        "other_label": int(other.sum()) if error.shape[1] > 1 else None,
        "largest": float(error.max()),
        "mean": float(error.mean()),
    }


class Comparison:
    """A model folder with what it says about the texts, which is computed once it is asked for.

    Args:
        folder: The model folder.
        texts: The texts.
        threads: CPU threads.
    """

    def __init__(self, folder: str, texts: Splits, threads: int) -> None:
        self._source, self._folder = folder, local_folder(folder)
        self._texts, self._threads = texts, threads
        self._original: Run | None = None
        self._model = display_name(folder)
        self._weights = weight_fingerprint(self._folder)

    def facts(self, name: str) -> Record:
        """Return what decides how a row comes out, ready for JSON."""
        own = runtime_versions(name) if name in TWINS else {}
        libraries = {library: library_version(library) for library in ("torch", "transformers")}
        return {
            "model": self._model,
            "runtime": name,
            "weights": self._weights,
            "data": self._texts.describe(),
            "metric": self._texts.task.monitor,
            "libraries": {**libraries, **own},
            "build": BUILD_VERSION,
        }

    def row(self, name: str) -> Record:
        """Return a row.

        Args:
            name: A runtime, or a control.

        Raises:
            PrepareError: The runtime cannot compute the model.
        """
        size = None
        if name in (FLOAT64, NUDGED):
            torch.set_num_threads(self._threads)
            session: Session = control(self._folder, name)
        else:
            samples = self._texts.samples("student") if runtime(name).calibrated else ()
            artefact = prepare(self._source, name, _TIMEOUT, samples)
            size = artefact.bytes
            session = runtime(name).open(artefact.folder, artefact.path, "cpu", self._threads)
        found = predict_all(session, self._texts)
        if self._original is None:
            eager = runtime(BASELINE_RUNTIME).open(self._folder, self._folder, "cpu", self._threads)
            self._original = predict_all(eager, self._texts)
        return {**self.facts(name), "bytes": size, **differences(found, self._original)}


def texts_of(folder: str, data: str | None, splits: Sequence[str]) -> Splits:
    """Return the texts of a model folder.

    Args:
        folder: The model folder.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        splits: Splits whose texts are predicted.

    Raises:
        ValueError: Nothing names data.
    """
    texts = texts_of_models([local_folder(folder)], data, splits[0])
    if texts is None:
        raise ValueError(
            "Expected labelled texts but nothing names data; give a YAML file with a data section with --data."
        )
    return Splits(texts.datamodule, splits[0], texts.task, splits=tuple(splits))


def line(record: Record) -> str:
    """Return a record as a row of the table; one without figures could not be computed."""
    columns = [
        record["model"],
        record["runtime"],
        "—" if not record.get("bytes") else f"{record['bytes'] / 1e6:.1f}",
    ]
    if "points" not in record:
        return f"| {' | '.join([*columns, *['—'] * 5])} |"
    other, texts = record["other_label"], record["texts"]
    same = "—" if other is None else f"{100 * (1 - other / texts):.2f} %"
    labels = "—" if other is None else f"{other} of {texts}"
    figures = [f"{record['points']:+.2f}", labels, same, f"{record['largest']:.3g}", f"{record['mean']:.3g}"]
    return f"| {' | '.join([*columns, *figures])} |"


def page(records: Sequence[Record], earlier: str = "") -> list[str]:
    """Return the blocks of the page.

    Args:
        records: The rows.
        earlier: The page as it is; rows of models and runtimes that are not among the records stay.
    """
    table = "\n".join([f"| {' | '.join(_COLUMNS)} |", "|---|---|" + "---:|" * 6, *map(line, records)])
    table = with_earlier_rows(table, earlier, key=2)
    known = [record for record in records if "points" in record]
    versions = {name: value for record in known for name, value in record["libraries"].items() if value}
    data = "; ".join(sorted({f"{record['metric']} on {record['data']}" for record in known}))
    return [
        "# Models trained with rounding, and their files for other runtimes",
        "Made by `scripts/compare_twins.py`, see `--help`. Differences are those to the model folder in eager float32 "
        "torch, over all texts. The two rows in torch are controls: the same integers and scales, other rounding "
        "errors of float32. — stands where a runtime has no product for the scheme.",
        f"- Texts: {data}\n- Software: {', '.join(f'{name} {value}' for name, value in sorted(versions.items()))}",
        table,
        *_summary(table),
    ]


def _summary(table: str) -> list[str]:
    """Say how far the files are at most, and the controls."""
    rows = [cells(row) for row in table.splitlines()[HEAD:]]
    points = [(row[1] in TWINS, abs(float(row[3]))) for row in rows if row[3] != "—"]
    files, controls = ([value for is_file, value in points if is_file is wanted] for wanted in (True, False))
    if not controls or not files:
        return []
    return [
        f"Files differ by up to {max(files):.2f} points from the folder that they were made from; torch itself, with "
        f"other rounding errors, by up to {max(controls):.2f}."
    ]


def main() -> None:
    """Read the arguments, compute what is not recorded, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="model folders")
    parser.add_argument(
        "--runtimes", nargs="+", default=[*TWINS, FLOAT64, NUDGED], help="rows of every folder"
    )
    parser.add_argument("--data", help="YAML file with a data section; that of each folder's run by default")
    parser.add_argument(
        "--splits", nargs="+", default=["validation", "test"], help="splits that are predicted"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--records", type=Path, default=Path("runs/twins.jsonl"), help="rows computed so far")
    parser.add_argument("--out", type=Path, help="page; only printed where there is none")
    args = parser.parse_args()
    rows = []
    for folder in args.folders:
        comparison = Comparison(folder, texts_of(folder, args.data, args.splits), args.threads)
        for name in args.runtimes:
            rows.append(_row(comparison, name, args.records))
            print(line(rows[-1]), flush=True)
    if args.out is not None:
        earlier = args.out.read_text(encoding="utf-8").partition(NOTES)[0] if args.out.is_file() else ""
        write_page(args.out, page(rows, earlier))


def _row(comparison: Comparison, name: str, records: Path) -> Record:
    facts = comparison.facts(name)
    for record in read_json_lines(records):
        if facts.items() <= record.items():
            return record
    try:
        row = comparison.row(name)
    except PrepareError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return facts
    append_rows(records, [row])
    return row


if __name__ == "__main__":
    main()
