"""Real models in real worker processes: the only place where times are real too."""

import math

import pytest
import torch

from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.runtime import import_model_code
from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert, tiny_model

LENGTHS = tuple(range(8, 40, 2))
WIDTH = {"hidden": 128, "vocab": 2000}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    facts = {"method": "soft targets", "input_lengths": [5, 9, 12], "recipe": "distil/x"}
    save_folder(
        root / "teacher" / "model", tiny_bert(layers=8, **WIDTH), None, {**facts, "method": "fine-tuning"}
    )
    save_folder(root / "student" / "model", tiny_bert(layers=2, **WIDTH), None, facts)
    broken = root / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((root / "student" / "model" / "config.json").read_text())
    (broken / "model.safetensors").write_bytes(b"no weights")
    return root


@pytest.fixture(scope="module")
def measured(folders):
    threads = torch.get_num_threads()
    # What the training process does with its threads must not reach the workers: with two threads each,
    # their processor time would exceed the time on the wall.
    torch.set_num_threads(2)
    names = {"student": "student/model", "broken": "broken"}
    candidates = [Candidate(name, str(folders / path)) for name, path in names.items()]
    teacher = Candidate("teacher", str(folders / "teacher" / "model"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        patch.setenv("MKL_NUM_THREADS", "2")
        found = measure(candidates, teacher, Protocol(LENGTHS, rounds=6))
    torch.set_num_threads(threads)
    return {measurement.candidate.name: measurement for measurement in found}


def test_a_quarter_of_the_layers_is_much_faster(measured):
    # 8 layers against 2: four times less work, less what embeddings, head and Python cost.
    assert 0.2 < measured["student"].ratios["cpu_latency"].median < 0.6
    assert 1.5 < measured["student"].ratios["cpu_throughput"].median < 5


def test_parameters_and_bytes_are_those_of_the_file(measured, folders):
    student = measured["student"]
    hidden, inner, vocab, layers, labels = 128, 256, 2000, 2, 3
    embeddings = (vocab + 130 + 2) * hidden + 2 * hidden
    block = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    head = hidden * hidden + hidden + hidden * labels + labels
    assert student.params == embeddings + layers * block + head
    file = folders / "student" / "model" / "model.safetensors"
    assert student.bytes == file.stat().st_size
    assert 4 * student.params < student.bytes < 4 * student.params + 20_000
    assert student.shape == {"family": "bert", "layers": 2, "hidden": 128, "vocab": 2000}


def test_figures_are_complete_and_sensible(measured):
    for name in ("teacher", "student"):
        figures = measured[name].cpu
        assert figures.rounds == 6 and figures.batch == len(LENGTHS)
        assert 0 < figures.p50_ms.p10 <= figures.p50_ms.median <= figures.p50_ms.p90 < 1000
        assert figures.p50_ms.median <= figures.p90_ms.median
        # Work in a process can hardly take longer than the clock on the wall says.
        assert figures.p50_ms.median <= figures.wall_p50_ms.median * 1.1
        assert 0 < figures.peak_mb < 300
        assert math.isfinite(figures.texts_per_second.median)
    assert measured["student"].gpu is None or torch.cuda.is_available()


def test_broken_folder_says_what_is_wrong(measured):
    assert "'load' failed: ValueError" in measured["broken"].error
    assert measured["broken"].cpu is None and measured["broken"].params is None


def test_refuses_a_model_that_reads_no_text(tmp_path):
    tiny_model("vit").save_pretrained(tmp_path / "vit")
    with pytest.raises(ValueError, match=r"Expected a model that classifies texts but .*vit holds a 'vit'"):
        import_model_code(str(tmp_path / "vit"))
