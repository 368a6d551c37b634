"""The order of rows in an epoch, and the share of it that each process takes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch.distributed
from torch.utils.data import DistributedSampler

from lit_compress.processes import train_together

IntArray = npt.NDArray[np.int64]


def shard(order: IntArray, batch_size: int, world: int, rank: int, pad: bool) -> IntArray:
    """Return the rows of one process.

    Every ``batch_size * world`` rows of ``order`` form one global batch, of which process ``rank`` takes the
    items ``rank, rank + world, …``: ``world`` processes see the batches of one process with a batch size that
    is ``world`` times larger.

    Args:
        order: Rows of the epoch, all processes together.
        batch_size: Rows per batch and process.
        world: Number of processes.
        rank: This process.
        pad: Repeat rows from the start of ``order`` so that all processes get equally many (training
            needs that); otherwise every row is given out exactly once.

    Returns:
        Rows in the order in which the process sees them.
    """
    whole = len(order) - len(order) % (batch_size * world)
    rest = order[whole:]
    if pad and len(rest) % world:
        rest = np.concatenate([rest, np.resize(order, -len(rest) % world)])
    batches = order[:whole].reshape(-1, batch_size * world)
    return np.concatenate([batches[:, rank::world].ravel(), rest[rank::world]])


class _Shards(DistributedSampler):
    """A sampler that knows the processes itself, so that Lightning leaves it alone but sets its epoch.

    The processes are looked up when the order is needed: loaders are built before the process group is.
    """

    def __init__(
        self, rows: IntArray, batch_size: int, seed: int, num_replicas: int | None, rank: int | None
    ) -> None:
        super().__init__(rows, num_replicas=1, rank=0, shuffle=False, seed=seed)  # type: ignore[arg-type]
        self.batch_size = batch_size
        self._place = (num_replicas, rank)

    def world(self) -> tuple[int, int]:
        """Return (number of processes, this process)."""
        replicas, rank = self._place
        if replicas is not None:
            return replicas, rank or 0
        if train_together():
            return torch.distributed.get_world_size(), torch.distributed.get_rank()
        return 1, 0


class BucketSampler(_Shards):
    """Batches of rows of similar length, in a random order that the seed and the epoch decide.

    The rows are shuffled, cut into pools of ``pool`` batches, sorted by length within each pool and cut into
    batches, which are shuffled in turn. The rows of the incomplete last batch are drawn before the sorting:
    they are no longer than others.

    Args:
        lengths: Token count of every row.
        batch_size: Rows per batch and process.
        pool: Pool size in batches; 0 shuffles the rows without regard to length.
        seed: Seed of the order.
        num_replicas: Number of processes (default: asked from ``torch.distributed`` at iteration).
        rank: This process (default: asked likewise).
    """

    def __init__(
        self,
        lengths: IntArray,
        batch_size: int,
        pool: int = 50,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__(lengths, batch_size, seed, num_replicas, rank)
        self.lengths = lengths
        self.pool = pool
        self.start = 0
        """Rows of this process to leave out of the next pass: set by the loader when it resumes."""

    def __iter__(self) -> Iterator[int]:
        world, rank = self.world()
        rows = shard(self.epoch_order(world), self.batch_size, world, rank, pad=True)
        start, self.start = self.start, 0
        return iter(rows[start:].tolist())

    def __len__(self) -> int:
        world, _ = self.world()
        batches, rest = divmod(len(self.lengths), self.batch_size * world)
        return batches * self.batch_size + -(-rest // world)

    def epoch_order(self, world: int) -> IntArray:
        """Return the order of all rows in this epoch for a number of processes."""
        generator = np.random.default_rng([self.seed, self.epoch])
        order = generator.permutation(len(self.lengths))
        if self.pool == 0:
            return order
        batch = self.batch_size * world
        whole, pool = len(order) - len(order) % batch, self.pool * batch
        for begin in range(0, whole, pool):
            part = order[begin : min(begin + pool, whole)]
            order[begin : begin + len(part)] = part[np.argsort(self.lengths[part], kind="stable")]
        batches = order[:whole].reshape(-1, batch)
        return np.concatenate([batches[generator.permutation(len(batches))].ravel(), order[whole:]])


class EverySampler(_Shards):
    """Every row exactly once, in a fixed order, whatever the number of processes.

    Args:
        order: Row numbers in the order to give out.
        batch_size: Rows per batch and process.
        num_replicas: Number of processes (default: asked from ``torch.distributed`` at iteration).
        rank: This process (default: asked likewise).
    """

    def __init__(
        self, order: IntArray, batch_size: int, num_replicas: int | None = None, rank: int | None = None
    ) -> None:
        super().__init__(order, batch_size, 0, num_replicas, rank)
        self.order = order

    def _rows(self) -> IntArray:
        world, rank = self.world()
        return shard(self.order, self.batch_size, world, rank, pad=False)

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows().tolist())

    def __len__(self) -> int:
        return len(self._rows())


def by_length(lengths: IntArray) -> IntArray:
    """Return the rows from short to long."""
    return np.argsort(lengths, kind="stable")


def by_length_shuffled(lengths: IntArray, batch_size: int) -> IntArray:
    """Return batches of rows of similar length in a fixed random order.

    The first batches are then a fair sample (``limit_val_batches``) and the progress bar tells the truth.
    """
    order = by_length(lengths)
    whole = len(order) - len(order) % batch_size
    batches = order[:whole].reshape(-1, batch_size)
    shuffled = batches[np.random.default_rng(0).permutation(len(batches))]
    return np.concatenate([shuffled.ravel(), order[whole:]])
