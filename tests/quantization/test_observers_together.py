"""Two processes that each see half of every batch end with the range of one that sees it whole."""

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as processes

from lit_compress.quantization import Scheme
from lit_compress.quantization.inputs import OBSERVERS


def batches():
    draw = torch.Generator().manual_seed(0)
    # The second half of a batch has other extremes than the first.
    return [
        torch.cat([torch.randn(40, generator=draw), 3 * torch.randn(40, generator=draw)]) for _ in range(3)
    ]


def ends_of(parts):
    """The range of every observer, after it has seen tensors one after the other."""
    found = {}
    for name, kind in OBSERVERS.items():
        observer = kind()
        for part in parts:
            observer.observe(part)
        found[name] = torch.stack(observer.range(Scheme(8, False, "tensor")))
    return found


def see_half(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(ends_of([batch.chunk(2)[rank] for batch in batches()]), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    processes.spawn(see_half, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", OBSERVERS)
def test_half_a_batch_each_gives_the_range_of_the_whole(name, seen):
    alone = ends_of(batches())[name]
    for ends in seen:
        torch.testing.assert_close(ends[name], alone, rtol=0, atol=0)
    assert not torch.equal(ends_of([batch.chunk(2)[0] for batch in batches()])[name], alone)
