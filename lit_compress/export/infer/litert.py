"""The part of infer.py that runs a LiteRT (TensorFlow Lite) file on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.cpu_options import CpuOptions
from ai_edge_litert.hardware_accelerator import HardwareAccelerator
from ai_edge_litert.options import Options

REQUIREMENTS = ["numpy", "ai-edge-litert>=2.3,<2.4"]


class LiteRtModel:
    """A text classifier in a LiteRT file: one graph per length of text, over the same weights.

    A text is filled up to the shortest length that holds it; the texts of a batch run one after the other.

    Args:
        path: The file.
        threads: CPU threads.
    """

    def __init__(self, path: Path, threads: int) -> None:
        # What the file is called makes XNNPACK keep the weights, rearranged for its products, once in memory; each
        # graph would have its own.
        cpu = CpuOptions(num_threads=threads, xnnpack_weight_cache_path=":memory")
        options = Options(hardware_accelerators=HardwareAccelerator.CPU, cpu_options=cpu)
        self._model = CompiledModel.from_file(str(path), options=options)
        signatures = self._model.get_signature_list()
        # A graph is named after its length: tokens_64.
        self._graphs = {int(name.partition("_")[2]): name for name in signatures}
        first = next(iter(signatures))
        self._names = signatures[first]["inputs"]
        (self._output,) = signatures[first]["outputs"]
        details = self._model.get_output_tensor_details(first)
        self._labels = int(details[self._output]["shape"][1])
        self._buffers: dict[int, tuple[dict, dict]] = {}

    def inputs(self, batch: dict[str, np.ndarray]) -> list[tuple[int, dict[str, np.ndarray]]]:
        """Return the length of the graph for every text, with its inputs, (1, length) in int32.

        Raises:
            ValueError: A text is longer than the longest graph.
        """
        return [self._text(batch, row) for row in range(len(batch["input_ids"]))]

    def _text(self, batch: dict[str, np.ndarray], row: int) -> tuple[int, dict[str, np.ndarray]]:
        tokens = int(np.flatnonzero(batch["attention_mask"][row]).max(initial=0)) + 1
        longest = max(self._graphs)
        if tokens > longest:
            raise ValueError(f"Expected texts of at most {longest} tokens but got {tokens}; truncate them.")
        length = min(graph for graph in self._graphs if graph >= tokens)
        # What stands behind the text does not matter: the mask leaves it out.
        inputs = {name: np.zeros((1, length), dtype=np.int32) for name in self._names}
        for name in inputs.keys() & batch.keys():
            inputs[name][0, :tokens] = batch[name][row, :tokens]
        return length, inputs

    def run(self, inputs: list[tuple[int, dict[str, np.ndarray]]]) -> np.ndarray:
        """Return the logits, (texts, labels) in float32."""
        logits = np.empty((len(inputs), self._labels), dtype=np.float32)
        for row, (length, arrays) in enumerate(inputs):
            source, target = self._buffers_of(length)
            for name, array in arrays.items():
                source[name].write(array)
            self._model.run_by_name(self._graphs[length], source, target)
            logits[row] = target[self._output].read(self._labels, np.float32)
        return logits

    def _buffers_of(self, length: int) -> tuple[dict, dict]:
        if length not in self._buffers:
            graph, model = self._graphs[length], self._model
            self._buffers[length] = (
                {name: model.create_input_buffer_by_name(graph, name) for name in self._names},
                {self._output: model.create_output_buffer_by_name(graph, self._output)},
            )
        return self._buffers[length]


def open_model(folder: Path, settings: dict, threads: int) -> Callable[[dict[str, np.ndarray]], np.ndarray]:
    """Return the function from int64 arrays of shape (texts, tokens) to logits of shape (texts, labels)."""
    model = LiteRtModel(folder / "model.tflite", threads)
    return lambda batch: model.run(model.inputs(batch))
