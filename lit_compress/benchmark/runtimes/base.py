"""What the benchmark needs to know about a way of running a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

#: ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the data has pairs: int64, right-padded.
Batch = dict[str, npt.NDArray[np.int64]]


class Session(ABC):
    """A loaded model."""

    @abstractmethod
    def inputs(self, batch: Batch) -> Any:
        """Return what :meth:`run` takes, on the device; never timed."""

    @abstractmethod
    def run(self, inputs: Any) -> Any:
        """Run one forward pass; this is what is timed."""

    @abstractmethod
    def logits(self, output: Any) -> npt.NDArray[np.float32]:
        """Return what :meth:`run` gave as an array in main memory."""


class FileSession(Session):
    """A file that runs as it does on a server: by the model that ``infer.py`` of an export has too.

    Args:
        model: One of ``lit_compress.export.infer``, with ``inputs`` and ``run``.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def inputs(self, batch: Batch) -> Any:
        """Return the inputs that the file has; ``ValueError`` where it cannot read them."""
        return self._model.inputs(batch)

    def run(self, inputs: Any) -> Any:
        """Return the logits."""
        return self._model.run(inputs)

    def logits(self, output: Any) -> npt.NDArray[np.float32]:
        """Return the logits as an array."""
        return np.asarray(output)


class Builder(ABC):
    """A way of turning a model folder into files for something else. It has no state."""

    #: Name in tables and on the command line: format and precision, as in ``"onnx-int8"``.
    name: ClassVar[str]
    #: Libraries whose version decides how the artefact comes out, by name of their distribution.
    libraries: ClassVar[tuple[str, ...]] = ()
    #: Those of :attr:`libraries`, or torch, that have to be of the same minor version where the artefact is loaded.
    bound_to: ClassVar[tuple[str, ...]] = ()
    #: Whether :meth:`build` needs real texts, to see which values activations take.
    calibrated: ClassVar[bool] = False
    #: Whether it computes with the integers of models that were trained with rounding; else it refuses them.
    rounded: ClassVar[bool] = False
    #: Whether it tells the two texts of a pair apart.
    pairs: ClassVar[bool] = True
    #: Largest parity error that passes, see :func:`~lit_compress.export.parity.check_parity`.
    tolerance: ClassVar[float] = 1e-3

    def check(self) -> None:  # noqa: B027
        """Refuse where a library is missing.

        Raises:
            ImportError: The message names the ``pip install`` line.
        """

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float | None:
        """Write the artefact; a runtime that loads the model folder itself writes nothing.

        Args:
            folder: Model folder.
            target: An empty folder.
            samples: Real training texts, one batch each, for those that are :attr:`calibrated`.

        Returns:
            The error that :func:`~lit_compress.export.parity.check_parity` found on random tokens, if it was asked.

        Raises:
            ValueError: The model cannot be turned into an artefact that computes the same.
        """
        return None

    def facts(self, folder: Path) -> dict[str, Any]:
        """Return what there is to know of a model, see :func:`~lit_compress.benchmark.facts.model_facts`.

        Where an artefact reads shorter texts than the model, ``max_positions`` is that of the artefact.

        Raises:
            ValueError: The folder holds no model that this can build from.
        """
        from lit_compress.benchmark.facts import model_facts
        from lit_compress.models.checkpoint import load

        return model_facts(load(folder))

    def note(self, artefact: Path) -> str | None:
        """Return what whoever runs an artefact has to know or still to do, ``None`` where there is nothing."""
        return None


class Runtime(Builder):
    """A way of running a model folder. It has no state."""

    #: Whether the last block is computed for one token where the head reads no other: its parts take less time there.
    narrow_end: ClassVar[bool] = True
    #: Devices on which it runs: ``"cpu"``, ``"cuda"``.
    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    @abstractmethod
    def imports(self, folder: Path) -> None:
        """Import everything that the model needs, so that memory counted from here on is the model's own."""

    @abstractmethod
    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> Session:
        """Load the model.

        Args:
            folder: Model folder.
            artefact: What :meth:`build` wrote; the model folder where it wrote nothing.
            device: One of :attr:`devices`.
            threads: CPU threads to compute with.

        Returns:
            The loaded model.
        """
