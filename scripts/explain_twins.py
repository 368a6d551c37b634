"""Find where a file for another runtime first rounds otherwise than the rounded model that it was made from.

Texts go through both one by one. Of every text the first activation counts whose integers differ: all before it are the
same, so that nothing but the arithmetic between two roundings is compared. A value that rounding errors of float32 move
over the border of two integers lay next to it; one that is computed otherwise lies anywhere. The page says how far the
values of these first differences lay from the border, in steps of the grid. Torch in float64 is the control: the same
code with other rounding errors.

    python scripts/explain_twins.py runs/quantization/qat_int4_group-seed0/model --out docs/twins_borders.md
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from bench_pages import write_page
from compare_twins import FLOAT64, control, texts_of
from torch import nn

from lit_compress import load
from lit_compress.benchmark.artefacts import prepare
from lit_compress.benchmark.folders import display_name, local_folder
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.quantization.inputs import InputQuantizer, input_quantizers_of

# How activations are told in a file: by scale and zero point, which are of 24 and 8 bits.
Key = tuple[float, int]
Integers = dict[Key, npt.NDArray[np.int64]]
_TIMEOUT = 1800.0


@dataclass
class Borders:
    """What was found for a runtime.

    Args:
        texts: How many were read.
        differing: How many of them have a rounding that differs.
        distances: How far from the border each value of the first differences lay, in steps.
        largest: By how many steps integers of first differences are apart, at most.
    """

    texts: int = 0
    differing: int = 0
    distances: list[float] = field(default_factory=list)
    largest: int = 0

    def add(self, ratios: dict[Key, npt.NDArray[np.float64]], mine: Integers, other: Integers) -> None:
        """Compare one text.

        Args:
            ratios: Activations over their steps, in the order in which they are computed.
            mine: Their integers.
            other: Those of the file; where only the head reads them, of the first token alone.
        """
        self.texts += 1
        for key, ratio in ratios.items():
            there = tuple(slice(size) for size in other[key].shape)
            apart = np.abs(mine[key][there] - other[key])
            if apart.any():
                self.differing += 1
                found = ratio[there][apart > 0]
                self.distances += np.abs(found - np.floor(found) - 0.5).tolist()
                self.largest = max(self.largest, int(apart.max()))
                return


def rounded_inputs(
    model: nn.Module,
) -> Callable[[Batch], tuple[dict[Key, npt.NDArray[np.float64]], Integers]]:
    """Return a function that gives the activations of a text over their steps, and their integers.

    Args:
        model: The rounded model in torch.
    """
    seen: dict[Key, npt.NDArray[np.float64]] = {}
    integers: Integers = {}

    def look(quantizer: InputQuantizer, inputs: tuple[torch.Tensor, ...]) -> None:
        grid, scheme = quantizer.grid(), quantizer.scheme
        key = _key(quantizer)
        ratio = inputs[0].to(grid.scale.dtype) / grid.scale
        seen[key] = ratio.double().numpy()
        integers[key] = (ratio.round() + key[1]).clamp(scheme.lowest, scheme.highest).long().numpy()

    for _, quantizer in input_quantizers_of(model):
        quantizer.register_forward_pre_hook(look)

    @torch.inference_mode()
    def run(batch: Batch) -> tuple[dict[Key, npt.NDArray[np.float64]], Integers]:
        seen.clear()
        integers.clear()
        model(**{name: torch.from_numpy(array) for name, array in batch.items()})
        return dict(seen), dict(integers)

    return run


def _key(quantizer: InputQuantizer) -> Key:
    grid = quantizer.grid()
    return float(grid.scale), int(grid.zero_point)


def _fed(batch: Batch, names: Sequence[str]) -> Batch:
    zeros = np.zeros_like(batch["input_ids"])
    return {name: batch.get(name, zeros) for name in names}


def integers_of_onnx(path: Path) -> Callable[[Batch], Integers]:
    """Return a function that gives the integers of the activations of a text in an ONNX file.

    Args:
        path: The file.
    """
    import onnx
    import onnxruntime

    model = onnx.load(path)
    constants = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    keys: dict[str, Key] = {}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (constants[name] for name in node.input[1:3])
            keys[node.output[0]] = float(scale.item()), int(zero.item())
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.output[0]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    wanted = [entry.name for entry in session.get_inputs()]

    def run(batch: Batch) -> Integers:
        found = session.run(list(keys), _fed(batch, wanted))
        # What the first token is read of alone, beside all of them, is rounded twice: the larger one is last.
        pairs = sorted(zip(keys.values(), found, strict=True), key=lambda pair: pair[1].size)
        return {key: value.astype(np.int64) for key, value in pairs}

    return run


def integers_of_openvino(path: Path, model: nn.Module) -> Callable[[Batch], Integers]:
    """Return a function that gives the integers of the activations of a text in an OpenVINO file.

    Args:
        path: The ``.xml`` file.
        model: The rounded model in torch: the file says the ends of ranges, and not the scales.
    """
    from lit_compress.export.infer.openvino import INFERENCE_PRECISION, openvino

    core = openvino.Core()
    graph = core.read_model(path)
    known = [_key(quantizer) for _, quantizer in input_quantizers_of(model)]
    keys: list[Key] = []
    for node in list(graph.get_ordered_ops()):
        if node.get_type_name() == "FakeQuantize":
            low, high = (float(node.input_value(place).get_node().get_data()) for place in (1, 2))
            scale = (high - low) / (node.get_attributes()["levels"] - 1)
            keys.append(min(known, key=lambda key, scale=scale: abs(key[0] - scale)))  # type: ignore[misc]
            graph.add_outputs(node.output(0))
    hints = {"INFERENCE_PRECISION_HINT": INFERENCE_PRECISION["int8"], "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(graph, "CPU", hints)
    wanted = [entry.any_name for entry in compiled.inputs]

    def run(batch: Batch) -> Integers:
        # The logits come first.
        found = list(compiled(_fed(batch, wanted)).values())[1:]
        return {
            key: np.rint(value / key[0]).astype(np.int64) + key[1]
            for key, value in zip(keys, found, strict=True)
        }

    return run


def texts_one_by_one(texts: Texts, count: int) -> Iterator[Batch]:
    """Return single texts without padding, from short to long.

    Args:
        texts: The texts.
        count: How many, evenly spread over them.
    """
    rows = texts.datamodule.rows(texts.split)
    order = np.argsort(rows["length"])
    for place in order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]:
        row = rows[int(place)]
        names = [name for name in ("input_ids", "token_type_ids") if name in row]
        batch = {name: np.asarray([row[name]], dtype=np.int64) for name in names}
        yield {**batch, "attention_mask": np.ones_like(batch["input_ids"])}


def explain(folder: str, data: str | None, count: int) -> dict[str, Borders]:
    """Return what was found, by runtime.

    Args:
        folder: The model folder.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        count: How many texts are read.
    """
    place, texts = local_folder(folder), texts_of(folder, data, ["validation"])
    model = nn.Module.float(load(place))
    mine, exact = rounded_inputs(model), rounded_inputs(control(place, FLOAT64).forward)
    samples = texts.samples("student")
    paths = {name: prepare(folder, name, _TIMEOUT, samples).path for name in ("onnx-int8", "openvino-int8")}
    others: dict[str, Callable[[Batch], Integers]] = {
        "onnx-int8": integers_of_onnx(paths["onnx-int8"] / "model.onnx"),
        "openvino-int8": integers_of_openvino(paths["openvino-int8"] / "openvino_model.xml", model),
        FLOAT64: lambda batch: exact(batch)[1],
    }
    found = {name: Borders() for name in others}
    for batch in texts_one_by_one(texts, count):
        ratios, integers = mine(batch)
        for name, other in others.items():
            found[name].add(ratios, integers, other(batch))
    return found


def line(model: str, name: str, found: Borders) -> str:
    """Return a row of the table.

    Args:
        model: Name of the model.
        name: The runtime.
        found: What was found for it.
    """
    values = np.asarray(found.distances or [0.0])
    cells = [f"{found.differing} of {found.texts}", str(len(found.distances)), str(found.largest)]
    return f"| {' | '.join([model, name, *cells, f'{np.median(values):.2g}', f'{values.max():.2g}'])} |"


def page(lines: Sequence[str]) -> list[str]:
    """Return the blocks of the page.

    Args:
        lines: Rows of the table.
    """
    head = "| Model | Beside torch in float32 | Texts that differ | Values | Steps apart | Distance: median | largest |"
    return [
        "# Where files of rounded models first round otherwise",
        "Made by `scripts/explain_twins.py`, see `--help`. Of every text only the first activation counts whose "
        "integers differ. Its values lay so far from the border of two integers, in steps: values that are computed "
        "otherwise would lie anywhere, with a median of 0.25 and up to 0.5.",
        "\n".join([head, "|---|---|" + "---:|" * 5, *lines]),
    ]


def main() -> None:
    """Read the arguments, look at every folder, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", help="model folders whose activations have fixed ranges")
    parser.add_argument("--data", help="YAML file with a data section; that of each folder's run by default")
    parser.add_argument("--texts", type=int, default=200, help="how many texts of dev")
    parser.add_argument("--out", type=Path, help="page; only printed where there is none")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = []
    for folder in args.folders:
        for name, found in explain(folder, args.data, args.texts).items():
            lines.append(line(display_name(folder), name, found))
            print(lines[-1], flush=True)
    if args.out is not None:
        write_page(args.out, page(lines))


if __name__ == "__main__":
    main()
