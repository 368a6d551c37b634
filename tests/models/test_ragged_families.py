"""Folders of every family: cut at random, with blocks that lost everything, and loaded again."""

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lit_compress.models.anatomy import UniformShape
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.factory import load_config
from lit_compress.models.rebuild import describe_student
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shape import cut_further, shape_of
from lit_compress.pruning.shrink import shrink
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


STOCK = """
import sys, torch, transformers
torch.set_num_threads(1)
batches = torch.load(sys.argv[1], weights_only=True)
logits = []
for batch, auto, folder in zip(batches, sys.argv[2::2], sys.argv[3::2]):
    model = getattr(transformers, auto).from_pretrained(folder)
    assert not model.training
    with torch.no_grad():
        logits.append(model(**batch).logits)
assert "lit_compress" not in sys.modules
torch.save(logits, sys.argv[1] + ".out")
"""
AUTO = {"vit": "AutoModelForImageClassification", "deit": "AutoModelForImageClassification"}
AUTO |= dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gpt2"), "AutoModelForCausalLM")
AUTO |= {"whisper": "AutoModelForSpeechSeq2Seq"}


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


def in_a_fresh_process(script, families, words, tmp_path):
    """What a script that is given these words computes of a batch of every family."""
    batches = tmp_path / "batches.pt"
    torch.save([family_batch(family) for family in families], batches)
    command = [sys.executable, "-c", script, str(batches), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return torch.load(tmp_path / "batches.pt.out", weights_only=True)


def test_a_fresh_process_loads_every_family_bit_for_bit(tmp_path):
    models = {family: cut(family) for family in EVERY_FAMILY}
    folders = [str(save_folder(tmp_path / name, model, None, {})) for name, model in models.items()]
    found = in_a_fresh_process(PROCESS, models, folders, tmp_path)
    for (family, model), values in zip(models.items(), found, strict=True):
        assert torch.equal(values, logits(model, family)), family


def test_golden_check_13_stock_transformers_loads_uniform_folders_of_every_family(tmp_path):
    models = {}
    for family in EVERY_FAMILY:
        layers = None if family == "albert_groups" else 2
        models[family] = shrink(family_model(family), UniformShape(layers=layers, neurons=12))
        assert models[family].num_parameters() < family_model(family).num_parameters()
    words = []
    for family, model in models.items():
        folder = save_folder(tmp_path / family, model, None, {})
        words += [AUTO.get(family, "AutoModelForSequenceClassification"), str(folder)]
    found = in_a_fresh_process(STOCK, models, words, tmp_path)
    for (family, model), values in zip(models.items(), found, strict=True):
        assert values.dtype == torch.float64, family
        # Not bit for bit: weights in a mapped file lie elsewhere in memory, and products may be summed otherwise.
        assert (values - logits(model, family)).abs().max().item() < 1e-12, family


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


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_width_that_no_heads_divide_is_written_and_loaded(family, tmp_path):
    model = family_model(family)
    full = model.config.hidden_size
    cut_further(model, {"hidden": list(range(13))})
    described = describe_student(model)
    loaded = load(save_folder(tmp_path / "m", model, None, {}))
    assert torch.equal(logits(loaded, family), logits(model, family))
    assert loaded.config.hidden_size == model.config.hidden_size == 13
    # What is written is the full model's, which the recorded structure cuts again.
    assert load_config(str(tmp_path / "m")).hidden_size == full > 13
    assert type(model.config).from_dict(described["config"]).hidden_size == full


class InMemory(TorchDispatchMode):
    """Keeps the shapes of all tensors of more than one dimension that operations put into memory."""

    def __init__(self):
        super().__init__()
        self.shapes = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and not tensor.is_meta and tensor.dim() > 1:
                self.shapes.add(tuple(tensor.shape))
        return result


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_the_full_model_is_never_in_memory(family, tmp_path):
    full, model = family_model(family), family_model(family)
    groups = find_groups(model, ["head", "neuron", "hidden"])
    cut_further(model, {group.name: list(range(0, group.units, 3)) for group in groups})
    folder = save_folder(tmp_path / "m", model, None, {})
    with InMemory() as memory:
        loaded = load(folder)
    before, after = (
        {tuple(tensor.shape) for tensor in (*one.parameters(), *one.buffers()) if tensor.dim() > 1}
        for one in (full, model)
    )
    assert after <= memory.shapes and not memory.shapes & (before - after) and before - after
    assert torch.equal(logits(loaded, family), logits(model, family))


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_everything_that_no_file_holds_is_what_the_constructor_makes(family, tmp_path):
    model = cut(family)
    loaded = load(save_folder(tmp_path / "m", model, None, {}))
    built = dict(type(model)(family_model(family).config).named_buffers())
    found = dict(loaded.named_buffers())
    assert found.keys() == built.keys()
    assert all(torch.equal(found[name], built[name]) for name in built)
    assert all(found[name].dtype == built[name].dtype for name in built)
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *found.values()))
    assert _tied(loaded) == _tied(model)
    assert {name: p.requires_grad for name, p in loaded.named_parameters()} == {
        name: p.requires_grad for name, p in model.named_parameters()
    }


def _tied(model):
    """Return the names of parameters that are one tensor."""
    names = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return sorted(shared for shared in names.values() if len(shared) > 1)


def test_refuses_a_model_whose_buffers_nothing_computes(tmp_path, monkeypatch):
    folder = save_folder(tmp_path / "m", cut("bert"), None, {})
    monkeypatch.setattr(type(load(folder).base_model), "_init_weights", lambda self, module: None)
    with pytest.raises(ValueError, match="leaves the buffer position_ids open"):
        load(folder)
