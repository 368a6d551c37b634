"""Every runtime on every kind of model folder: built here, loaded and run in a clean process of its own."""

import numpy as np
import pytest
import torch

from lit_compress.benchmark.process import WorkerProcess
from lit_compress.benchmark.runtimes import RUNTIMES, runtime
from lit_compress.benchmark.workload import token_batch
from lit_compress.export.formats import FORMATS, builder
from lit_compress.export.parity import relative_error
from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.student import LayerSubset
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.uniform import UniformShape
from tests.export.test_ragged import ragged
from tests.tiny import tiny_bert

# Compiled in the process that runs it, half a minute per shape: tests/benchmark/test_runtimes.py has it.
BUILT_IN_PLACE = ("torch-compile",)
# A quarter of a minute of compiling per model; tests/export/test_aotinductor.py has it, on a ragged one.
SLOW_TO_BUILD = ("aotinductor-bf16",)
# As long as that too: of its models those that differ most.
TWO_MODELS = {"aotinductor-fp32": ("ordinary", "ragged")}
BATCHES = ((9,), (3, 21, 14), (1, 33))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Ordinary, distilled (layers of a larger model), uniformly pruned, raggedly pruned."""
    root = tmp_path_factory.mktemp("models")
    teacher = save_folder(root / "ordinary", tiny_bert(layers=4), None, {})
    student = LayerSubset(source=str(teacher), layers=[0, 3]).build(None, 3)
    return {
        "ordinary": teacher,
        "distilled": save_folder(root / "distilled", student, None, {"method": "soft targets"}),
        "uniform": save_folder(
            root / "uniform",
            shrink(tiny_bert(layers=3, hidden=32).eval(), UniformShape(layers=2, neurons=17)),
            None,
            {},
        ),
        "ragged": save_folder(root / "ragged", ragged(), None, {}),
    }


def samples():
    return [token_batch((length,), 100, 0, length) for length in range(2, 34)]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in RUNTIMES if name not in BUILT_IN_PLACE + SLOW_TO_BUILD])
def test_a_clean_process_computes_what_the_original_does(name, folders, tmp_path):
    way = runtime(name)
    try:
        way.check()
    except ImportError as error:
        pytest.skip(str(error))
    with WorkerProcess("cpu", threads=1) as worker:
        for kind in TWO_MODELS.get(name, folders):
            folder = folders[kind]
            target = tmp_path / kind
            target.mkdir()
            way.build(folder, target, samples() if way.calibrated else ())
            artefact = target if any(target.iterdir()) else folder
            places = {"folder": str(folder), "artefact": str(artefact)}
            tokens = {"vocab_size": 100, "pad_token_id": 0}
            worker.request("load", 300, **places, runtime=name, device="cpu", threads=1, **tokens)
            model = load(folder).float()
            got, wanted = [], []
            for seed, lengths in enumerate(BATCHES):
                batch = token_batch(lengths, 100, 0, seed)
                rows = {key: array.tolist() for key, array in batch.items()}
                got += worker.request("predict", 300, batch=rows)["logits"]
                with torch.no_grad():
                    inputs = {key: torch.from_numpy(array) for key, array in batch.items()}
                    wanted += model(**inputs).logits.tolist()
            error = relative_error(np.asarray(got, np.float32), np.asarray(wanted, np.float32))
            assert error <= way.tolerance, (kind, error)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_says_what_it_is_measured_with(format):
    for precision in FORMATS[format]:
        way = builder(f"{format}-{precision}")
        assert 0 < way.tolerance < 1
        assert not way.calibrated or way.name in RUNTIMES
