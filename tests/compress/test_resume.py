"""Killed inside every stage and at every boundary, the stages end with the bytes of those that were never stopped."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from lit_compress.__main__ import main
from lit_compress.compress import stage as stage_module
from lit_compress.compress.fits import fits_of
from lit_compress.compress.length import Length
from lit_compress.compress.plan import Plan, Start
from lit_compress.compress.planning import Figures, Storage
from lit_compress.compress.stage import Stage, run_stages
from lit_compress.quantization.stage import FROZEN, OBSERVE, ROUND
from tests.compress.pairs import write_pair_task
from tests.runs import TINY, phase


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return write_pair_task(tmp_path_factory.mktemp("task"), is_regression=False)


def stages_in(out, task, order, more=()):
    """Return the stages of a plan: vocabulary, factors, one fit; or, for a chain, its two fits alone."""
    teacher, start = (out / "teacher", out / "start") if order == "joint" else [task / "teacher"] * 2
    texts = f"--vocabulary-from={task / 'data.yaml'}"
    before = (
        Stage("vocabulary", "", ("shrink", str(task / "teacher"), texts, f"--out={teacher}")),
        Stage("embeddings", "", ("shrink", str(teacher), texts, "--embedding-rank=8", f"--out={start}")),
    )[: 2 if order == "joint" else 0]
    words = [f"--config={TINY}", "--trainer.limit_train_batches=6", "--trainer.max_epochs=1"]
    words += ["--trainer.val_check_interval=3", "--data.augment.copies=1", *more]
    request = {"order": order, "seed": 0, "words": words}
    rank = 8 if before else None
    length = Length(1, 1, 6)
    figures = Figures(1.2, Storage(4, 8, rank), "onnx-int8", 2.0, 1, 1.2)
    plan = Plan(
        request, [], figures, before, Start(str(teacher), str(start), str(task / "data.yaml"), 8, length)
    )
    out.mkdir()
    fits, model = fits_of(plan, out, "student", is_regression=False)
    return [*before, *fits], model


def weights(model):
    return hashlib.sha256((model / "lit_compress.safetensors").read_bytes()).hexdigest()


def run_here(words):
    """Stands for ``run_process`` where nothing is killed: imports would take longer than the stage."""
    assert words[1:3] == ["-m", "lit_compress"]
    return main(words[3:])


class KillInside:
    """Stands for ``run_process``: kills a process as soon as there is something of it, once per stage."""

    def __init__(self):
        self.killed = []

    def __call__(self, words):
        place = next(word.partition("=")[2] for word in words if word.startswith(("--out=", "--run_dir=")))
        if place in self.killed:
            return run_here(words)
        self.killed.append(place)
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._wait(process, place)
        process.send_signal(signal.SIGKILL)
        return process.wait()

    def _wait(self, process, place):
        """Wait for a checkpoint of a fit; a shrink is killed after a second, while it imports or reads."""
        until = time.monotonic() + (120 if "student" in place else 1)
        while time.monotonic() < until and process.poll() is None:
            if (Path(place) / "checkpoints" / "last.ckpt").is_file():
                return
            time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "count"), [("joint", 3), ("chained", 2)])
def test_killed_inside_every_stage_it_ends_the_same(order, count, task, tmp_path, monkeypatch):
    stages, model = stages_in(tmp_path / "whole", task, order)
    assert len(stages) == count
    monkeypatch.setattr(stage_module, "run_process", run_here)
    run_stages(stages, tmp_path / "whole")
    expected = weights(model)
    stages, model = stages_in(tmp_path / "killed", task, order)
    killer = KillInside()
    monkeypatch.setattr(stage_module, "run_process", killer)
    for number in range(len(stages)):
        with pytest.raises(ValueError, match="ended with status -9"):
            run_stages(stages, tmp_path / "killed")
        assert len(killer.killed) == number + 1
    run_stages(stages, tmp_path / "killed")
    assert weights(model) == expected
    recipe = yaml.safe_load((tmp_path / "killed" / "student.yaml").read_text())
    assert recipe["trainer"]["callbacks"][0]["init_args"]["weights"]["bits"] == 4


#: Steps of a fit, kills and what the last checkpoint before them has: whether the structure is decided, and the
#: stage of what rounds. Structures move when a step begins, and every second step ends with a checkpoint.
PHASES = {
    5: (False, OBSERVE),
    11: (True, OBSERVE),
    15: (True, ROUND),
    19: (True, FROZEN),
    "end": (True, FROZEN),
}
LONGER = [
    "--data.batch_size=8",
    "--trainer.limit_train_batches=20",
    "--trainer.val_check_interval=2",
    "--trainer.limit_val_batches=1",
    "--trainer.callbacks.freeze_at=0.35",  # of the gates; the ranges are those of the recipe
]


class KillAtSteps:
    """Stands for ``run_process``: kills a fit at a step."""

    def __init__(self, worker):
        self.worker, self.at = worker, None

    def __call__(self, words):
        self.worker.stdin.write(json.dumps([words[3:], self.at]) + "\n")
        self.worker.stdin.flush()
        return int(self.worker.stdout.readline())


@pytest.fixture
def kill(monkeypatch):
    words = [sys.executable, "-m", "tests.compress.kill_worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(words, cwd=Path(__file__).parents[2], **pipes) as worker:
        killer = KillAtSteps(worker)
        monkeypatch.setattr(stage_module, "run_process", killer)
        yield killer
        worker.stdin.close()


@pytest.mark.slow
def test_killed_in_every_phase_and_after_its_end_the_fit_ends_the_same(task, tmp_path, kill):
    stages, model = stages_in(tmp_path / "whole", task, "joint", LONGER)
    run_stages(stages, tmp_path / "whole")
    expected = weights(model)
    stages, model = stages_in(tmp_path / "killed", task, "joint", LONGER)
    run_stages(stages[:2], tmp_path / "killed")
    for step, expected_phase in PHASES.items():
        assert not model.exists()
        kill.at = step
        with pytest.raises(ValueError, match="the stage student to finish but it ended with status -9"):
            run_stages(stages, tmp_path / "killed")
        assert phase(tmp_path / "killed" / "student" / "checkpoints" / "last.ckpt") == expected_phase, step
    # The fit was over, and only its line was missing.
    assert weights(model) == expected
    assert "student" not in (tmp_path / "killed" / "stages.jsonl").read_text()
    kill.at = None
    run_stages(stages, tmp_path / "killed")
    assert weights(model) == expected
