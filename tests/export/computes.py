"""Whether a runtime computes what the folder of a model does."""

import torch

from lit_compress.benchmark.workload import token_batch
from lit_compress.export.parity import relative_error
from lit_compress.models.checkpoint import load, save_folder

#: Runtime of trained integers → its largest error, relative to the size of the logits. They add in another order: a
#: rounding or two of one text falls on the other side.
INTEGERS = {"onnx-int8": 1e-4, "openvino-int8": 0.06, "litert-int8": 0.02}


def error_of(way, model, tmp_path):
    folder, target = save_folder(tmp_path / "model", model, None, {}), tmp_path / "file"
    target.mkdir()
    way.build(folder, target)
    session = way.open(folder, target, "cpu", 1)
    inputs = token_batch((17, 2, 9, 30), 100, 0, 9)
    with torch.no_grad():
        wanted = load(folder)(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits
    got = torch.from_numpy(session.logits(session.run(session.inputs(inputs))))
    assert got.numpy().std(0).min() > 1e-3  # texts differ
    return relative_error(got.numpy(), wanted.numpy())
