"""A training loader that continues in the middle of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader

from lit_compress.data.sampler import BucketSampler


class ResumableDataLoader(DataLoader):
    """A ``DataLoader`` over a :class:`BucketSampler` whose place in the epoch is saved in checkpoints.

    Lightning stores ``state_dict()`` of such loaders and calls ``load_state_dict`` before it resumes. The
    batches that were trained on are then left out without being read.

    Args:
        *args: As for ``DataLoader``; the sampler must be a :class:`BucketSampler`.
        progress: Returns the current epoch and the number of its batches that are trained on, or None where
            nobody counts. Then the epoch is what ``set_epoch`` said, and a batch given out counts as done;
            the difference shows when a step fails half-way.
        **kwargs: As for ``DataLoader``.
    """

    def __init__(
        self, *args: Any, progress: Callable[[], tuple[int, int] | None] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.progress = progress
        self._epoch = 0
        self._given = 0
        self._resume: dict[str, Any] | None = None

    def __iter__(self) -> Iterator:  # type: ignore[override]
        """Start an epoch with the first batch that is asked for, not before.

        Lightning asks for the iterator before it knows the epoch.
        """
        return self._batches()

    def _batches(self) -> Iterator:
        sampler = self.sampler
        if isinstance(sampler, BucketSampler):
            progress = self._progress()
            # Not the epoch that Lightning sets: a fit with max_steps that resumes from the end of an epoch
            # counts that epoch twice.
            self._epoch = sampler.epoch if progress is None else progress[0]
            sampler.set_epoch(self._epoch)
            self._given = self._batches_to_skip(sampler)
            sampler.start = self._given * sampler.batch_size
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the epoch and what it depends on."""
        if self._resume is not None:
            return self._resume
        progress = self._progress()
        batches = self._given if progress is None else progress[1]
        return {"epoch": self._epoch, "batches": batches, "order": _order(self.sampler)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from this state in the next pass, if the epoch is then still the same."""
        self._resume = state

    def _progress(self) -> tuple[int, int] | None:
        return self.progress() if self.progress is not None else None

    def _batches_to_skip(self, sampler: BucketSampler) -> int:
        state, self._resume = self._resume, None
        # A finished epoch has nothing to continue: what is asked for now is the next one.
        if state is None or state["epoch"] != self._epoch or not 0 < state["batches"] < len(self):
            return 0
        order = _order(sampler)
        if state["order"] != order:
            raise ValueError(
                f"Expected to continue epoch {self._epoch} after batch {state['batches']} in the order of "
                f"the checkpoint {state['order']} but got {order}; restore these settings, or resume from a "
                "checkpoint that was saved at the end of an epoch."
            )
        return int(state["batches"])


def _order(sampler: Any) -> dict[str, int] | None:
    """Return everything that the order of the rows depends on, apart from the epoch."""
    if not isinstance(sampler, BucketSampler):
        return None
    batch = sampler.batch_size * sampler.world()[0]
    return {"rows": len(sampler.lengths), "global batch": batch, "pool": sampler.pool, "seed": sampler.seed}
