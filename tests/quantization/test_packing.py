"""Packed integers come back, and lie where the format says."""

import pytest
import torch

from lit_compress.quantization.packing import pack, packed_bytes, unpack


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64, 1001])
def test_round_trip(bits, count):
    integers = torch.randint(0, 2**bits, (count,), generator=torch.Generator().manual_seed(bits))
    data = pack(integers, bits)
    assert data.dtype == torch.uint8 and len(data) == packed_bytes(count, bits) == -(-count * bits // 8)
    assert torch.equal(unpack(data, bits, count).long(), integers)


@pytest.mark.parametrize("bits", range(1, 9))
def test_bytes_are_one_long_number_in_base_two(bits):
    integers = torch.randint(0, 2**bits, (3, 7), generator=torch.Generator().manual_seed(bits))
    number = sum(value << (bits * place) for place, value in enumerate(integers.flatten().tolist()))
    assert bytes(pack(integers, bits).tolist()) == number.to_bytes(packed_bytes(21, bits), "little")


def test_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="from 0 to 15 for 4 bits but got 3 to 16"):
        pack(torch.tensor([3, 16]), 4)
    with pytest.raises(ValueError, match="but got -1 to 2; shift signed ones first"):
        pack(torch.tensor([-1, 2]), 4)
    with pytest.raises(ValueError, match="Expected a width of 1 to 8 bits but got 9"):
        pack(torch.tensor([1]), 9)
    with pytest.raises(ValueError, match=r"Expected 2 bytes for 3 integers of 4 bits but got \(3,\)"):
        unpack(torch.zeros(3, dtype=torch.uint8), 4, 3)
