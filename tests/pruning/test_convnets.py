"""Convolution nets: what is removed does nothing, sizes are recorded, and a fresh process loads the same net."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import (
    MobileNetV1Config,
    MobileNetV1ForImageClassification,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    RegNetConfig,
    RegNetForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
)

from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.sizes import apply_sizes, sizes_of
from lit_compress.models.transforms import restore, transforms_of
from lit_compress.pruning.convnets import has_convolutions, operations, prune_convnet
from tests.tiny import tiny_bert

pytest.importorskip("torch_pruning")

_STAGES = {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1], "num_labels": 3}
NETS = {
    "resnet": lambda: ResNetForImageClassification(ResNetConfig(**_STAGES)),
    "mobilenet_v1": lambda: MobileNetV1ForImageClassification(
        MobileNetV1Config(depth_multiplier=0.25, num_labels=3)
    ),
    "mobilenet_v2": lambda: MobileNetV2ForImageClassification(
        MobileNetV2Config(depth_multiplier=0.25, num_labels=3)
    ),
    "regnet": lambda: RegNetForImageClassification(RegNetConfig(**_STAGES, groups_width=8)),
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def net(name):
    """A net with statistics as after training: at their start batch norms would hide a wrong choice of channels."""
    torch.manual_seed(0)
    model = NETS[name]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    return model


def weights(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def pruned():
    return {name: prune_convnet(net(name), IMAGES, 0.5) for name in NETS}


@pytest.mark.parametrize("name", NETS)
def test_so_many_weights_are_removed_and_operations_fall(name, pruned):
    small, full = pruned[name], net(name)
    assert 0.5 <= 1 - weights(small) / weights(full) < 0.65
    assert operations(small, IMAGES) < 0.75 * operations(full, IMAGES)
    with torch.no_grad():
        assert small(IMAGES).logits.shape == (2, 3)
    assert not small.training


@pytest.mark.parametrize("name", NETS)
def test_sizes_are_those_of_the_weights(name, pruned):
    ((transform, arguments),) = transforms_of(pruned[name])
    assert transform == "sizes"
    for path, module in pruned[name].named_modules():
        if isinstance(module, nn.Conv2d):
            inputs, outputs, groups = arguments["modules"][path]
            assert list(module.weight.shape[:2]) == [outputs, inputs // groups]
        elif isinstance(module, nn.BatchNorm2d):
            assert arguments["modules"][path] == [len(module.weight)] == [len(module.running_var)]
        elif isinstance(module, nn.Linear):
            assert arguments["modules"][path] == list(module.weight.shape)[::-1]


def test_depthwise_convolutions_stay_depthwise(pruned):
    before = [m for m in net("mobilenet_v1").modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    after = [m for m in pruned["mobilenet_v1"].modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(before) == len(after) == 13
    assert all(m.groups == m.in_channels == m.out_channels for m in after)
    assert sum(m.groups for m in after) < sum(m.groups for m in before)


def test_groups_of_convolutions_keep_their_number(pruned):
    before = [m.groups for m in net("regnet").modules() if isinstance(m, nn.Conv2d)]
    after = [m for m in pruned["regnet"].modules() if isinstance(m, nn.Conv2d)]
    assert max(before) > 1
    assert [m.groups for m in after] == before
    assert all(m.in_channels % m.groups == m.out_channels % m.groups == 0 for m in after)


def test_a_fresh_process_loads_the_same_nets(pruned, tmp_path):
    """And needs nothing of the library that pruned them."""
    for name, model in pruned.items():
        save_folder(tmp_path / name, model, None, {})
    torch.save(IMAGES, tmp_path / "images.pt")
    code = (
        "import sys, torch, lit_compress; torch.set_num_threads(1); torch.set_grad_enabled(False)\n"
        "folder, *names = sys.argv[1:]; images = torch.load(folder + '/images.pt')\n"
        "outputs = {name: lit_compress.load(folder + '/' + name)(images).logits for name in names}\n"
        "assert 'torch_pruning' not in sys.modules\n"
        "torch.save(outputs, folder + '/out.pt')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), *pruned], check=True)
    outputs = torch.load(tmp_path / "out.pt")
    with torch.no_grad():
        for name, model in pruned.items():
            assert torch.equal(outputs[name], model(IMAGES).logits), name


class Small(nn.Module):
    """Convolution, norm, ReLU, twice, with a sum around the second, and a linear layer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm1 = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.norm2 = nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.head = nn.Linear(12, 5)

    def forward(self, images):
        hidden = torch.relu(self.norm1(self.first(images)))
        hidden = torch.relu(self.norm2(self.second(hidden)))
        return self.head(hidden.mean((2, 3)))


def small_net():
    torch.manual_seed(1)
    model = Small().double().eval()
    for norm in (model.norm1, model.norm2):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
        norm.bias.data.normal_()
    return model


def kept_channels(full, small, norm):
    """Found by the running means, which no two channels share."""
    return [
        full.get_submodule(norm).running_mean.tolist().index(m)
        for m in small.get_submodule(norm).running_mean.tolist()
    ]


@pytest.mark.parametrize("importance", ["magnitude", "batch_norm", "lamp", "fpgm", "random"])
def test_shrunk_equals_masked(importance):
    """Removed channels zeroed behind their ReLU, by hand, in float64."""
    full, images = small_net(), IMAGES.double()
    before = {name: tensor.clone() for name, tensor in full.state_dict().items()}
    small = prune_convnet(full, images, 0.5, importance)
    assert all(torch.equal(before[name], tensor) for name, tensor in full.state_dict().items())
    first, second = (kept_channels(full, small, norm) for norm in ("norm1", "norm2"))
    assert 0 < len(first) < 8
    assert 0 < len(second) < 12

    def masked(hidden, kept):
        keep = torch.zeros(hidden.shape[1], dtype=torch.float64)
        keep[kept] = 1
        return hidden * keep[None, :, None, None]

    with torch.no_grad():
        hidden = masked(torch.relu(full.norm1(full.first(images))), first)
        hidden = masked(torch.relu(full.norm2(full.second(hidden))), second)
        assert torch.allclose(full.head(hidden.mean((2, 3))), small(images), rtol=0, atol=1e-12)


def test_magnitude_keeps_the_largest_filters():
    """Of the last convolution, with what reads it: squares of its filter, its norm and its column of the head."""
    full = small_net()
    with torch.no_grad():
        for channel in (1, 4, 5, 9):
            full.second.weight[channel] *= 10
    small = prune_convnet(full, IMAGES.double(), 0.8)
    assert set(kept_channels(full, small, "norm2")) <= {1, 4, 5, 9}


def test_channels_are_multiples():
    small = prune_convnet(small_net(), IMAGES.double(), 0.4, round_to=4)
    assert {small.first.out_channels, small.second.out_channels} <= {4, 8, 12}
    assert small.head.out_features == 5


def test_the_structure_can_be_replayed():
    """Without a configuration too: a fresh net of the same class gets the sizes, then the weights."""
    small = prune_convnet(small_net(), IMAGES.double(), 0.5)
    again = Small().double()
    restore(again, transforms_of(small))
    again.load_state_dict(small.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(IMAGES.double()), small(IMAGES.double()))


def test_what_was_pruned_can_be_pruned_again():
    once = prune_convnet(small_net(), IMAGES.double(), 0.3)
    twice = prune_convnet(once, IMAGES.double(), 0.3)
    assert weights(twice) <= 0.7 * weights(once)
    assert transforms_of(twice) == [["sizes", {"modules": sizes_of(twice)}]]


def test_frozen_parameters_stay_frozen_and_training_goes_on():
    full = small_net()
    full.first.requires_grad_(False)
    small = prune_convnet(full, IMAGES.double(), 0.5).train()
    assert not small.first.weight.requires_grad
    small(IMAGES.double()).sum().backward()
    assert small.first.weight.grad is None
    assert small.second.weight.grad is not None


def test_random_numbers_go_on_as_if_nothing_was_drawn():
    model = small_net()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    prune_convnet(model, IMAGES.double(), 0.5, "random")
    assert torch.equal(torch.rand(3), expected)


def test_operations_are_counted_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(), nn.Linear(8 * 36, 2)
    )
    expected = 8 * 8 * 8 * 27 + 8 * 6 * 6 * 9 + 8 * 36 * 2
    assert operations(model, torch.zeros(1, 3, 10, 10)) == expected
    model = nn.ConvTranspose2d(4, 6, 2, stride=2, bias=False)
    assert operations(model, torch.zeros(1, 4, 5, 5)) == 5 * 5 * 4 * 6 * 4


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.0}, "sparsity between 0 and 1"),
        ({"sparsity": 1.0}, "sparsity between 0 and 1"),
        ({"sparsity": 0.9999}, "at most 0.9"),
        ({"sparsity": 0.5, "importance": "size"}, "magnitude, batch_norm, lamp, fpgm, random but got 'size'"),
        ({"sparsity": 0.5, "round_to": 0}, "round_to >= 1"),
        ({"sparsity": 0.5, "keep": ["no.such"]}, "has no 'no.such'"),
        ({"sparsity": 0.3, "keep": ["first"]}, "would give .*in keep"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        prune_convnet(small_net(), IMAGES.double(), **options)


def test_refuses_a_net_without_convolutions():
    with pytest.raises(ValueError, match="BertForSequenceClassification has none"):
        prune_convnet(tiny_bert(), IMAGES, 0.5)
    assert not has_convolutions(tiny_bert())
    assert has_convolutions(net("resnet"))


def test_refuses_layers_whose_sizes_are_not_recorded():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.PReLU(8), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(4 * 784, 2)
    )
    with pytest.raises(ValueError, match="1.weight of Sequential would change"):
        prune_convnet(model, IMAGES, 0.3)


def test_refuses_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(ImportError, match=r'pip install "lit-compress\[convnets\]"'):
        prune_convnet(small_net(), IMAGES.double(), 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"no.such.layer": [1, 2, 1]}, "'no.such.layer'"),
        ({"resnet.embedder.embedder.convolution": [3, 0, 1]}, r"\[3, 0, 1\]"),
        ({"resnet.embedder.embedder.convolution": [3, 8]}, r"\[3, 8\]"),
        ({"resnet.embedder.embedder.convolution": [3, 8, 5]}, "5 groups divide"),
    ],
)
def test_refuses_damaged_sizes(change, message):
    model = net("resnet")
    with pytest.raises(ValueError, match=message):
        apply_sizes(model, {**sizes_of(model), **change})


def test_refuses_a_folder_whose_manifest_was_edited(pruned, tmp_path):
    path = save_folder(tmp_path / "model", pruned["resnet"], None, {}) / "lit_compress.json"
    manifest = json.loads(path.read_text())
    manifest["transforms"][0][1]["modules"]["resnet.embedder.embedder.convolution"][1] += 1
    path.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="of another shape: resnet.embedder"):
        load(tmp_path / "model")
