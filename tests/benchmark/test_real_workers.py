"""Real models in real worker processes: the only place where times are real too."""

import math
import shutil
import sys
from pathlib import Path

import pytest
import torch

from lit_compress.benchmark import process
from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert

LENGTHS = tuple(range(8, 40, 2))
WIDTH = {"hidden": 128, "vocab": 2000}
pytestmark = pytest.mark.slow
PROTOCOL = Protocol(LENGTHS, rounds=6, fixed_lengths=(32, 384))


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
        found = measure(candidates, teacher, PROTOCOL)
    torch.set_num_threads(threads)
    return {measurement.candidate.name: measurement for measurement in found}


def test_a_quarter_of_the_layers_is_much_faster(measured):
    # 8 layers against 2: four times less work, less what embeddings, head and Python cost.
    ratios = measured["student"].ratios
    assert 0.2 < ratios["cpu_latency"].median < 0.6
    assert 1.5 < ratios["cpu_throughput_32"].median < 5
    assert ratios["cpu_latency"].verdict == "faster"


def test_parameters_and_bytes_are_those_of_the_file(measured, folders):
    artefact = measured["student"].artefact
    hidden, inner, vocab, layers, labels = 128, 256, 2000, 2, 3
    embeddings = (vocab + 130 + 2) * hidden + 2 * hidden
    block = 4 * (hidden * hidden + hidden) + 2 * hidden * inner + inner + hidden + 4 * hidden
    head = hidden * hidden + hidden + hidden * labels + labels
    params = embeddings + layers * block + head
    assert artefact.facts["params"] == params
    assert artefact.bytes == (folders / "student" / "model" / "model.safetensors").stat().st_size
    assert 4 * params < artefact.bytes < 4 * params + 20_000
    units = {"heads": 4, "neurons": inner}
    shape = {"family": "bert", "layers": 2, "hidden": hidden, "vocab": vocab, "per_layer": units}
    assert artefact.facts["shape"] == shape


def test_figures_are_complete_and_sensible(measured):
    for name in ("teacher", "student"):
        figures = measured[name].cpu
        assert 5 <= figures.rounds <= 6 and figures.warmup_rounds >= 2
        assert 0 < figures.p50_ms.p10 <= figures.p50_ms.median <= figures.p50_ms.p90 < 1000
        assert figures.p50_ms.median <= figures.p90_ms.median <= figures.p99_ms.median
        # Work in a process can hardly take longer than the clock on the wall says.
        assert figures.p50_ms.median <= figures.wall_p50_ms.median * 1.1
        assert 0 < figures.peak_mb < 300
        assert all(math.isfinite(figures.throughput[size].median) for size in (8, 32))
        # The models read 130 tokens.
        assert set(figures.fixed) == {32}
        assert measured[name].warnings == []
    assert measured["student"].gpu is None or torch.cuda.is_available()


def test_broken_folder_says_what_is_wrong_and_harms_nobody(measured):
    assert "readable model at" in measured["broken"].error and "SafetensorError" in measured["broken"].error
    assert measured["broken"].cpu is None and measured["broken"].artefact is None


def test_model_that_is_run_twice_is_found_to_be_twice_as_slow(folders, monkeypatch):
    script = str(Path(__file__).with_name("twice_worker.py"))
    monkeypatch.setattr(process, "worker_command", lambda: [sys.executable, script])
    twice = shutil.copytree(folders / "teacher" / "model", folders / "twice")
    teacher = Candidate("teacher", str(folders / "teacher" / "model"))
    _, slow = measure([Candidate("twice", str(twice))], teacher, PROTOCOL)
    assert slow.error is None
    for name in ("cpu_latency", "cpu_latency_32"):
        assert slow.ratios[name].verdict == "slower"
        assert 1.6 < slow.ratios[name].median < 2.5
    assert slow.ratios["cpu_throughput_32"].verdict == "slower"
    assert not slow.is_teacher
