"""What the benchmark needs to know about a way of running a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class Runtime(ABC):
    """A way of running a model folder. It has no state."""

    #: Name in tables and on the command line.
    name: ClassVar[str]
    #: Devices on which it runs: ``"cpu"``, ``"cuda"``.
    devices: ClassVar[tuple[str, ...]] = ("cpu",)
    #: Libraries whose version decides how the artefact comes out, by name of their distribution.
    libraries: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:  # noqa: B027
        """Refuse where a library is missing.

        Raises:
            ImportError: The message names the ``pip install`` line.
        """

    def build(self, folder: Path, target: Path) -> None:  # noqa: B027
        """Write the artefact that :meth:`open` loads; a runtime that loads the model folder writes nothing.

        Args:
            folder: Model folder.
            target: An empty folder.

        Raises:
            ValueError: The model cannot be turned into an artefact that computes the same.
        """

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
