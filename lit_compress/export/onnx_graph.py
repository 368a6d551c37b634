"""Reading, editing and writing ONNX graphs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

#: The operator set of ONNX Runtime.
MICROSOFT = "com.microsoft"
# What one protobuf message holds; a little is left for the graph itself.
_MOST_BYTES = 2**31 - 2**24
# Tensors below it stay in the graph: they are shapes and axes, which a runtime wants to see at once.
_SMALL_BYTES = 1024


class GraphEditor:
    """The nodes of a graph, to be replaced one by one.

    Args:
        model: The graph, which is changed.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.old = list(model.graph.node)
        self.constants = {entry.name: entry for entry in model.graph.initializer}
        self.producers = {name: node for node in self.old for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.old:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self._new: list[onnx.NodeProto] = []
        self._added: dict[str, onnx.TensorProto] = {}
        self._outputs: set[str] = set()

    def matrix(self, name: str) -> npt.NDArray[np.float32] | None:
        """Return a constant float32 matrix with rows and columns; ``None`` where the name is something else."""
        from onnx import TensorProto

        tensor = self.constants.get(name)
        if (
            tensor is None
            or tensor.data_type != TensorProto.FLOAT
            or len(tensor.dims) != 2
            or 0 in tensor.dims
        ):
            return None
        return self.array(name)

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return a constant, of any type and shape."""
        from onnx import numpy_helper

        return numpy_helper.to_array(self.constants[name])

    def constant(self, name: str, array: npt.NDArray[Any]) -> str:
        """Add a constant, unless it is there already, and return its name."""
        from onnx import numpy_helper

        if name not in self._added:
            self._added[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def bias_of(self, output: str) -> tuple[str, str]:
        """Return the constant vector that is added to an output and to nothing else, and the name of the sum."""
        after = self.readers.get(output, [])
        if len(after) == 1 and after[0].op_type == "Add":
            for name in after[0].input:
                if self.is_vector(name):
                    return name, after[0].output[0]
        return "", ""

    def is_vector(self, name: str) -> bool:
        """Whether a name is that of a constant with one axis."""
        return name in self.constants and len(self.constants[name].dims) == 1

    def has_node(self, output: str) -> bool:
        """Whether a node with a first output of this name was added."""
        return output in self._outputs

    def has(self, name: str) -> bool:
        """Whether a constant was added under a name."""
        return name in self._added

    def add(self, op: str, inputs: Iterable[str], *outputs: str, domain: str = "", **attributes: Any) -> str:
        """Add a node, and return the name of its first output."""
        from onnx import helper

        name = f"{outputs[0]}/{op}"
        node = helper.make_node(op, list(inputs), list(outputs), name, domain=domain, **attributes)
        self._new.append(node)
        self._outputs.add(outputs[0])
        return outputs[0]

    def keep(self, node: onnx.NodeProto) -> None:
        """Take a node over as it is."""
        self._new.append(node)

    def finish(self) -> None:
        """Put the new nodes in the place of the old ones, and drop the constants that nothing reads any more."""
        del self.graph.node[:]
        self.graph.node.extend(self._new)
        read = {name for node in self._new for name in node.input}
        constants = [entry for entry in self.constants.values() if entry.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend([*constants, *self._added.values()])


def share_constants(model: onnx.ModelProto) -> None:
    """Store equal constants once: an exporter writes the transposed weights of a shared layer once for every use.

    Args:
        model: The graph, which is changed.
    """
    graph = model.graph
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        shape = f"{tensor.data_type} {list(tensor.dims)} ".encode()
        key = hashlib.sha256(shape + _content(tensor)).digest()
        same[tensor.name] = first.setdefault(key, tensor.name)
    # An exporter that shares constants itself does it by nodes that give them other names.
    others = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    same |= {other: same[name] for other, name in others.items() if name in same}
    kept = [node for node in graph.node if node.op_type != "Identity" or node.input[0] not in same]
    for node in kept:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    constants = [tensor for tensor in graph.initializer if same[tensor.name] == tensor.name]
    for field, entries in ((graph.node, kept), (graph.initializer, constants)):
        # Copied first: what is deleted from a message is gone.
        entries = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
        del field[:]
        field.extend(entries)


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; weights that one file cannot hold go to a second one beside it, of the same name with ``.data``.

    Args:
        model: The graph with all its weights; where they go to a second file, it loses them.
        path: The file.
    """
    import onnx

    if sum(len(_content(tensor)) for tensor in model.graph.initializer) < _MOST_BYTES:
        onnx.save_model(model, path)
        return
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        location=data_file(path).name,
        size_threshold=_SMALL_BYTES,
    )


def data_file(path: Path) -> Path:
    """Return the place of the weights that do not fit into the file of a graph."""
    return path.with_name(f"{path.name}.data")


def _content(tensor: onnx.TensorProto) -> bytes:
    return tensor.raw_data or tensor.SerializeToString()
