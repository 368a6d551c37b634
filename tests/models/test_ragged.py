"""Folders of models whose blocks differ in size: complete, loud where something is wrong, ordinary where uniform."""

import copy
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

import lit_compress
from lit_compress.models import LayerSubset, Pretrained, Teacher
from lit_compress.models.anatomy import UniformShape
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.factory import from_pretrained
from lit_compress.models.ragged import save_ragged
from lit_compress.models.transforms import transforms_of
from lit_compress.outputs import Capture
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.shrink import shrink
from tests.tiny import tiny_batch, tiny_bert

OURS = """
import sys, torch, lit_compress
model = lit_compress.load(sys.argv[1])
assert not model.training
batch = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    torch.save(model(**batch).logits, sys.argv[3])
"""
STOCK = (
    OURS.replace(", lit_compress", "")
    .replace("lit_compress.load(", "AutoModel.from_pretrained(")
    .replace("model =", "from transformers import AutoModelForSequenceClassification as AutoModel\nmodel =")
)


def batch():
    return {k: v for k, v in tiny_batch().items() if k in ("input_ids", "attention_mask", "token_type_ids")}


def masked(hidden=False, layer=False, seed=0, **sizes):
    """A BERT with a fifth to a half of its units closed; block 0 has no head left, block 2 no neuron."""
    model = tiny_bert(**sizes)
    structures = ["head", "neuron", *["hidden"] * hidden, *["layer"] * layer]
    apply_fixed_gates(model, structures)
    generator = torch.Generator().manual_seed(seed)
    for group, gate in gates_of(model).pairs():
        gate.open.copy_((torch.rand(gate.units, generator=generator) > 0.4).float())
        if (group.structure, group.layer) in (("head", 0), ("neuron", 2)):
            gate.open.zero_()
        if group.structure == "layer":
            gate.open.fill_(group.layer != 1)
    return model.eval()


@pytest.fixture
def ragged():
    return shrink(masked(hidden=True, layer=True))


@pytest.fixture
def folder(tmp_path, ragged):
    return save_folder(tmp_path / "model", ragged, None, {"method": "pruning"})


def logits(model):
    with torch.no_grad():
        return model(**batch()).logits


def in_a_fresh_process(script, folder, tmp_path):
    torch.save(batch(), tmp_path / "batch.pt")
    paths = [str(folder), str(tmp_path / "batch.pt"), str(tmp_path / "logits.pt")]
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return torch.load(tmp_path / "logits.pt", weights_only=True)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# -- round trips -----------------------------------------------------------------------------------


def test_a_fresh_process_loads_a_ragged_folder_bit_for_bit(folder, ragged, tmp_path):
    assert torch.equal(in_a_fresh_process(OURS, folder, tmp_path), logits(ragged))
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}


def test_a_fresh_process_loads_a_uniform_folder_with_stock_transformers(tmp_path):
    model = shrink(masked(layer=True), UniformShape(layers=2, heads=2, neurons=8, hidden=16))
    folder = save_folder(tmp_path / "model", model, None, {})
    assert "lit_compress" not in (folder / "config.json").read_text()
    found = in_a_fresh_process(STOCK, folder, tmp_path)
    assert torch.equal(found, logits(model))
    assert torch.equal(found, logits(load(folder)))


def test_loading_restores_shape_configuration_and_type(folder, ragged, tmp_path):
    loaded = lit_compress.load(folder)
    assert transforms_of(loaded) == transforms_of(ragged) != []
    assert loaded.config.hidden_size == ragged.config.hidden_size < 32
    assert loaded.config.num_hidden_layers == 3
    assert {k: v.shape for k, v in loaded.state_dict().items()} == {
        k: v.shape for k, v in ragged.state_dict().items()
    }
    assert "lit_compress" not in loaded.config.to_dict()
    half = save_folder(tmp_path / "half", ragged.bfloat16(), None, {})
    assert load(half).dtype == torch.bfloat16
    assert from_pretrained(str(half)).dtype == torch.float32


def test_loading_leaves_the_random_numbers_alone(folder):
    before = torch.get_rng_state()
    load(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loaded_folder_is_saved_and_shrunk_again(folder, ragged, tmp_path):
    second = save_folder(tmp_path / "second", load(folder), None, {})
    assert torch.equal(logits(load(second)), logits(ragged))
    cut = load(second)
    cut.bert.encoder.layer[2].output.dense.weight.data[:, ::2] = 0
    third = save_folder(tmp_path / "third", shrink(cut), None, {})
    assert torch.allclose(logits(load(third)), logits(cut), atol=1e-6)
    assert sum(p.numel() for p in load(third).parameters()) < sum(p.numel() for p in cut.parameters())


def test_weights_in_several_files(ragged, tmp_path, monkeypatch):
    save = type(ragged).save_pretrained
    monkeypatch.setattr(
        type(ragged),
        "save_pretrained",
        lambda *args, **options: save(*args, **options, max_shard_size="10KB"),
    )
    folder = save_folder(tmp_path / "model", ragged, None, {})
    assert len(list(folder.glob("lit_compress-*.safetensors"))) > 2
    assert not list(folder.glob("model*"))
    assert torch.equal(logits(load(folder)), logits(ragged))
    next(folder.glob("lit_compress-*.safetensors")).unlink()
    with pytest.raises(ValueError, match="Expected a readable model at"):
        load(folder)


# -- in the place of other models ------------------------------------------------------------------


def test_it_is_a_teacher(folder, ragged):
    teacher = Teacher(str(folder), precision="fp32")
    live = teacher.live(teacher.load(), Capture())
    assert torch.equal(live.outputs(batch(), Capture()).logits, logits(ragged))


def test_it_is_the_start_of_a_fit(folder, ragged):
    student = Pretrained(str(folder)).build(None, 3)
    assert student.training and all(parameter.requires_grad for parameter in student.parameters())
    assert transforms_of(student) == transforms_of(ragged)
    assert torch.equal(logits(student.eval()), logits(ragged))
    with pytest.raises(ValueError, match="Expected a model for 5 labels"):
        Pretrained(str(folder)).build(None, 5)


def test_layers_are_taken_from_it(folder, ragged):
    student = LayerSubset([0, 2]).build(lambda: Teacher(str(folder)).load(), 3, ["a", "b", "c"])
    blocks, kept = ragged.bert.encoder.layer, student.bert.encoder.layer
    assert student.training and all(parameter.requires_grad for parameter in student.parameters())
    assert student.config.num_hidden_layers == 2 and student.config.id2label[1] == "b"
    for block, source in zip(kept, (blocks[0], blocks[2]), strict=True):
        state = source.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in block.state_dict().items())
    assert ragged.config.num_hidden_layers == 3
    again = load(save_folder(folder.parent / "student", student, None, {}))
    assert torch.equal(logits(again), logits(student.eval()))
    with pytest.raises(ValueError, match="no new head can be put on it"):
        LayerSubset([0, 2], source=str(folder)).build(None, 5)


def test_no_new_head_is_put_on_a_ragged_encoder(ragged, tmp_path):
    from lit_compress.pruning.bake import bake

    model = masked()
    bake(model)
    save_folder(tmp_path / "encoder", shrink(model.bert), None, {})
    with pytest.raises(ValueError, match="no new head can be added"):
        from_pretrained(str(tmp_path / "encoder"), num_labels=3)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("emptied", [False, True])
def test_stock_transformers_stops_at_a_ragged_folder(tmp_path, emptied):
    model = tiny_bert(layers=2)
    part = model.bert.encoder.layer[0].output.dense.weight.data
    part[:, : None if emptied else 5] = 0
    folder = save_folder(tmp_path / "model", shrink(model), None, {})
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        AutoModelForSequenceClassification.from_pretrained(folder)
    note = json.loads((folder / "config.json").read_text())
    assert note["lit_compress"]["load_with"] == "lit_compress.load"
    assert note["architectures"] == ["BertForSequenceClassification"] and note["model_type"] == "bert"


def test_under_the_usual_name_transformers_would_draw_what_is_missing(tmp_path):
    """Why the weights have a name of their own: with a block without neurons stock loading does not even fail."""
    model = tiny_bert(layers=2)
    model.bert.encoder.layer[0].output.dense.weight.data[:] = 0
    save_ragged(tmp_path, shrink(model))
    (tmp_path / "lit_compress.safetensors").rename(tmp_path / "model.safetensors")
    drawn = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert drawn.bert.encoder.layer[0].output.dense.weight.abs().max() > 0


def test_refuses_a_model_with_gates(tmp_path):
    with pytest.raises(ValueError, match="it still has fixed_gates; shrink it first"):
        save_folder(tmp_path / "model", masked(), None, {})
    assert not list(tmp_path.iterdir())


HEADS = "bert.encoder.layer.1.attention.self.head"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shape: shape.pop("units"), "KeyError|TypeError"),
        (lambda shape: shape.pop("config"), "KeyError"),
        (lambda shape: shape.update(units=5), "AttributeError|TypeError"),
        (
            lambda shape: shape["units"].update({HEADS: [0, 99]}),
            r"Expected units from 0 to 3, each once, of .*99",
        ),
        (lambda shape: shape["units"].update({HEADS: [1, 1]}), "each once"),
        (lambda shape: shape["units"].update({HEADS: ["0"]}), "TypeError"),
        (lambda shape: shape["units"].update({"bert.encoder.layer.9.intermediate.neuron": [0]}), "layer.9"),
        (lambda shape: shape["units"].update(hidden=[]), "at least one hidden dimension"),
        (lambda shape: shape.update(config={"hidden_size": 33}), "ValueError"),
        (lambda shape: shape.update(more=1), "TypeError"),
    ],
)
def test_refuses_a_manifest_with_a_damaged_shape(folder, change, message):
    edit(folder / "lit_compress.json", lambda manifest: change(manifest["transforms"][0][1]))
    with pytest.raises(ValueError, match=rf"in the model folder .* cannot be built \(.*({message})"):
        load(folder)


def test_refuses_a_truncated_manifest(folder):
    path = folder / "lit_compress.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ValueError, match="corrupt: save the model folder again"):
        load(folder)


def test_refuses_weights_that_do_not_fit_the_manifest(folder):
    path = "bert.encoder.layer.0.intermediate.neuron"
    edit(folder / "lit_compress.json", lambda manifest: manifest["transforms"][0][1]["units"][path].pop())
    with pytest.raises(ValueError, match=r"3 of another shape: bert\.encoder\.layer\.0\.\S+ \(file"):
        load(folder)


def test_refuses_missing_and_foreign_weights(folder):
    state = load_file(folder / "lit_compress.safetensors")
    state["other.bias"] = state.pop("classifier.bias")
    save_file(state, folder / "lit_compress.safetensors")
    with pytest.raises(
        ValueError, match=r"1 missing: classifier\.bias; 1 not part of the model: other\.bias"
    ):
        load(folder)


def test_refuses_cut_and_absent_weights(folder):
    file = folder / "lit_compress.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="SafetensorError"):
        load(folder)
    file.unlink()
    with pytest.raises(ValueError, match="safetensors"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BertModel", "cannot be built"),
        ("RobertaForSequenceClassification", "cannot be built"),
        ("Nothing", "base_class"),
    ],
)
def test_refuses_the_wrong_class(folder, name, message):
    edit(folder / "lit_compress.json", lambda manifest: manifest.update(base_class=name))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_a_folder_is_not_changed_by_the_model_that_was_saved(ragged, tmp_path):
    before = copy.deepcopy(ragged.state_dict())
    save_folder(tmp_path / "model", ragged, None, {})
    assert all(torch.equal(value, before[name]) for name, value in ragged.state_dict().items())
