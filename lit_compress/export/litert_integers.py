"""LiteRT files whose products read stored integers in the place of float32 matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lit_compress.export.trained import Floats, Product, outputs_first, per_output, refuse_missing

# Only rounding of float32 lies between a matrix and the same one multiplied by the converter.
_SAME = 1e-5


class _Stored(NamedTuple):
    """What takes the place of a float32 matrix: its name, how LiteRT reads it, and whether its input is rounded."""

    name: str
    kind: int
    scale: Floats
    rounds: bool


class IntegerGraphs:
    """The graphs of a LiteRT file in float32, to be given integers.

    Args:
        content: The file.
        products: The matrices by name.
        wanted: Their values in the file, outputs first, perhaps with more inputs of zeros; the converter may have
            multiplied outputs.
    """

    def __init__(self, content: bytes, products: Mapping[str, Product], wanted: Mapping[str, Floats]) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self._schema = schema
        self._model = schema.ModelT.InitFromPackedBuf(content)
        self._products, self._wanted = products, wanted
        self._stored: dict[int, _Stored | None] = {}

    def rounded(self) -> bytes:
        """Return the file with integers.

        Raises:
            ValueError: A graph does not hold a matrix.
        """
        import flatbuffers

        for number, graph in enumerate(self._model.subgraphs):
            # The converter names a tensor after all modules around it: in the graphs of a small model, megabytes.
            for index, tensor in enumerate(graph.tensors):
                tensor.name = f"{number}.{index}"
            self._round_graph(graph)
        builder = flatbuffers.Builder(sum(len(entry.data) for entry in self._buffers()))
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _buffers(self) -> list[Any]:
        return [entry for entry in self._model.buffers if entry.data is not None]

    def _round_graph(self, graph: Any) -> None:
        missing = set(self._products)
        values: dict[int, int] = {}
        operators: list[Any] = []
        for operator in graph.operators:
            stored = self._matrix_of(graph, operator)
            if stored is not None:
                missing.discard(stored.name)
                place = int(operator.inputs[1])
                self._describe(graph.tensors[place], stored)
                if stored.rounds:
                    # Without XNNPACK too, a row is rounded to its range and not to one around zero.
                    operator.builtinOptions.asymmetricQuantizeInputs = True
                else:
                    if place not in values:
                        values[place] = self._add_values(graph, place, operators)
                    inputs = [int(number) for number in operator.inputs]
                    operator.inputs = [inputs[0], values[place], *inputs[2:]]
            operators.append(operator)
        graph.operators = operators
        refuse_missing(missing)

    def _matrix_of(self, graph: Any, operator: Any) -> _Stored | None:
        """Return what takes the place of the constant matrix of a product; ``None`` where it is to stay."""
        code = self._model.operatorCodes[operator.opcodeIndex]
        if code.builtinCode != self._schema.BuiltinOperator.FULLY_CONNECTED:
            return None
        tensor = graph.tensors[int(operator.inputs[1])]
        if tensor.buffer not in self._stored:
            data = self._model.buffers[tensor.buffer].data
            if data is None or tensor.type != self._schema.TensorType.FLOAT32:
                return None
            matrix = np.asarray(data).view(np.float32).reshape(tensor.shape)
            self._stored[tensor.buffer] = self._store(tensor.buffer, matrix)
        return self._stored[tensor.buffer]

    def _store(self, buffer: int, matrix: Floats) -> _Stored | None:
        """Put integers into a buffer that all graphs read, where it holds a known matrix."""
        for name, wanted in self._wanted.items():
            factors = _factors(matrix, wanted)
            if factors is not None:
                product = self._products[name]
                integers = _integers(product, matrix.shape[1])
                kinds = self._schema.TensorType
                small = product.stored.scheme.bits <= 4 and product.stored.scheme.symmetric
                small = small and not matrix.shape[1] % 2
                content = _nibbles(integers) if small else integers
                self._model.buffers[buffer].data = content.view(np.uint8).reshape(-1)
                scale = per_output(product.stored.grid.scale.numpy(), len(matrix)) * factors
                kind = kinds.INT4 if small else kinds.INT8
                return _Stored(name, kind, scale.astype(np.float32), product.source is not None)
        return None

    def _describe(self, tensor: Any, stored: _Stored) -> None:
        found = self._schema.QuantizationParametersT()
        found.scale, found.zeroPoint = stored.scale, np.zeros(len(stored.scale), np.int64)
        tensor.type, tensor.quantization = stored.kind, found

    def _add_values(self, graph: Any, place: int, operators: list[Any]) -> int:
        """Compute a matrix from its integers, which LiteRT does once; return the number of its tensor."""
        schema = self._schema
        tensor = schema.TensorT()
        tensor.type, tensor.shape = schema.TensorType.FLOAT32, graph.tensors[place].shape
        tensor.name, tensor.buffer = f"{graph.tensors[place].name}.values", 0
        graph.tensors.append(tensor)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code_of_dequantize()
        operator.inputs, operator.outputs = [place], [len(graph.tensors) - 1]
        operators.append(operator)
        return len(graph.tensors) - 1

    def _code_of_dequantize(self) -> int:
        schema, codes = self._schema, self._model.operatorCodes
        # Scales per output are known to the fifth version.
        wanted = schema.BuiltinOperator.DEQUANTIZE, 5
        for number, code in enumerate(codes):
            if (code.builtinCode, code.version) == wanted:
                return number
        code = schema.OperatorCodeT()
        code.builtinCode, code.version = wanted
        code.deprecatedBuiltinCode = wanted[0]
        codes.append(code)
        return len(codes) - 1


def _factors(matrix: Floats, wanted: Floats) -> npt.NDArray[np.float64] | None:
    """Return what the outputs of a matrix were multiplied by, ``None`` where it is another matrix."""
    if matrix.shape != wanted.shape:
        return None
    known = wanted.astype(np.float64)
    size = np.square(known).sum(1)
    found = np.divide((matrix * known).sum(1), size, out=np.ones_like(size), where=size > 0)
    return found if np.allclose(matrix, known * found[:, None], rtol=_SAME, atol=0.0) else None


def _integers(product: Product, inputs: int) -> npt.NDArray[np.int8]:
    """Return integers minus zero points, outputs first, with further inputs of zeros."""
    stored = product.stored
    integers = outputs_first(stored)
    points = per_output(stored.grid.zero_point.numpy(), len(integers))[:, None].astype(np.int16)
    return np.pad(integers - points, ((0, 0), (0, inputs - integers.shape[1]))).astype(np.int8)


def _nibbles(integers: npt.NDArray[np.int8]) -> npt.NDArray[np.uint8]:
    """Return integers of four bits, two in a byte, the first in its lower half."""
    pairs = integers.reshape(-1, 2).view(np.uint8) & 15
    return (pairs[:, 0] | pairs[:, 1] << 4).astype(np.uint8)
