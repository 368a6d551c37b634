"""Folders of every family: cut at random, with blocks that lost everything, and loaded again."""

import subprocess
import sys

import pytest
import torch

from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shape import cut_further, shape_of
from tests.families import EVERY_FAMILY, family_batch, family_model

PROCESS = """
import sys, torch, lit_compress
torch.set_num_threads(1)
folders = sys.argv[2:]
batches = torch.load(sys.argv[1], weights_only=True)
logits = []
for folder, batch in zip(folders, batches):
    with torch.no_grad():
        logits.append(lit_compress.load(folder)(**batch).logits)
torch.save(logits, sys.argv[1] + ".out")
"""


def cut(family, seed=0, hidden=True):
    model = family_model(family)
    generator = torch.Generator().manual_seed(seed)
    structures = ["head", "neuron", *["hidden"] * hidden]
    units = {}
    for group in find_groups(model, structures, strict=False):
        kept = (torch.rand(group.units, generator=generator) > 0.4).nonzero().flatten().tolist()
        empty = (group.structure, group.layer) in (("head", 1), ("neuron", 0))
        units[group.name] = [] if empty else kept or [0]
    cut_further(model, units)
    return model


def logits(model, family):
    with torch.no_grad():
        return model(**family_batch(family)).logits


def test_a_fresh_process_loads_every_family_bit_for_bit(tmp_path):
    models = {family: cut(family) for family in EVERY_FAMILY}
    folders = [str(save_folder(tmp_path / name, model, None, {})) for name, model in models.items()]
    torch.save([family_batch(family) for family in models], tmp_path / "batches.pt")
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "batches.pt"), *folders]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "batches.pt.out", weights_only=True)
    for (family, model), values in zip(models.items(), found, strict=True):
        assert torch.equal(values, logits(model, family)), family


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_cutting_twice_is_cutting_once_and_loads(family, tmp_path):
    """Units are numbered as in the full model, whatever was cut before."""
    first = {
        group.name: list(range(0, group.units, 2)) for group in find_groups(family_model(family), ["neuron"])
    }
    second = {name: [0, 3, 4] for name in first}
    twice, once = family_model(family), family_model(family)
    cut_further(twice, first)
    cut_further(twice, second)
    cut_further(once, {name: [0, 6, 8] for name in first})
    assert transforms_of(twice) == transforms_of(once)
    assert shape_of(once)["units"] == {name: [0, 6, 8] for name in first}
    assert torch.equal(logits(twice, family), logits(once, family))
    assert torch.equal(
        logits(load(save_folder(tmp_path / "m", twice, None, {})), family), logits(once, family)
    )
