import json
import subprocess
import sys
import time

import pytest

from lit_compress.benchmark import process
from lit_compress.benchmark.process import WorkerError, WorkerProcess, worker_environment


def load(folder):
    return {"folder": folder, "device": "cpu", "runtime": "torch-fp32"}


def test_settings_of_the_parent_do_not_reach_the_worker():
    parent = {
        "OMP_NUM_THREADS": "7",
        "OMP_PROC_BIND": "true",
        "KMP_BLOCKTIME": "0",
        "MKL_NUM_THREADS": "7",
        "TORCHINDUCTOR_FREEZING": "1",
        "CUDA_VISIBLE_DEVICES": "3",
        "HOME": "/home/me",
    }
    cpu = worker_environment("cpu", 2, parent)
    assert (cpu["OMP_NUM_THREADS"], cpu["MKL_NUM_THREADS"]) == ("2", "2")
    assert not {"OMP_PROC_BIND", "KMP_BLOCKTIME", "TORCHINDUCTOR_FREEZING"} & cpu.keys()
    assert cpu["CUDA_VISIBLE_DEVICES"] == ""
    assert cpu["HOME"] == "/home/me"
    assert worker_environment("cuda", 2, parent)["CUDA_VISIBLE_DEVICES"] == "3"


def test_replies_come_back_and_the_worker_ends_with_its_parent(fake_workers, fake_folder):
    with WorkerProcess("cpu", 1) as worker:
        facts = worker.request("load", 10, **load(fake_folder("m")))
        assert facts == {"device_name": None}
        handle = worker._process
        assert handle.poll() is None
    assert handle.returncode == 0


@pytest.mark.parametrize(
    ("then", "message"),
    [
        ("fail", "'latency' failed: RuntimeError: it did not work"),
        ("crash", "exit status 1 during 'latency': the last words of the worker"),
        ("kill", "killed by SIGKILL, perhaps for lack of memory during 'latency'"),
        ("hang", "no answer to 'latency' within 0.3 s"),
    ],
)
def test_refuses_to_wait_for_a_worker_that_fails(fake_workers, fake_folder, then, message):
    with WorkerProcess("cpu", 1) as worker:
        worker.request("load", 10, **load(fake_folder("m", do="latency", then=then)))
        with pytest.raises(WorkerError, match=message):
            worker.request("time", 0.3 if then == "hang" else 10, workload="latency", batches=[[3]], seed=0)


def test_worker_that_takes_too_much_memory_is_ended_at_once(fake_workers, fake_folder):
    started = time.monotonic()
    with WorkerProcess("cpu", 1, memory_limit_mb=120) as worker:
        worker.request("load", 10, **load(fake_folder("m", do="memory", then="hog")))
        with pytest.raises(WorkerError, match=r"took 1\d\d MB of memory, its limit was 120 MB.*'memory'"):
            worker.request("memory", 30)
    assert time.monotonic() - started < 20


def test_worker_below_its_limit_is_left_alone(fake_workers, fake_folder):
    with WorkerProcess("cpu", 1, memory_limit_mb=500) as worker:
        worker.request("load", 10, **load(fake_folder("m")))
        time.sleep(0.3)
        assert worker.request("memory", 10)["peak"] == 1_000_000


def test_hanging_worker_is_ended(fake_workers, fake_folder):
    started = time.monotonic()
    with WorkerProcess("cpu", 1) as worker:
        worker.request("load", 10, **load(fake_folder("m", do="memory", then="hang")))
        worker.send("memory")
    assert worker._process.returncode is not None
    assert time.monotonic() - started < 10


def test_dead_worker_is_noticed_when_the_next_request_is_sent(fake_workers, monkeypatch):
    monkeypatch.setattr(process, "worker_command", lambda: [sys.executable, "-c", "pass"])
    with WorkerProcess("cpu", 1) as worker:
        worker._process.wait()
        with pytest.raises(WorkerError, match="ended with exit status 0 during 'memory'"):
            worker.request("memory", 10)


def test_what_libraries_print_stays_out_of_the_replies():
    program = (
        "import lit_compress.benchmark.worker as w\n"
        "HEAVY = ('lightning', 'datasets', 'wandb', 'torch', 'onnxruntime')\n"
        "def noisy(self):\n"
        "    print('Loading weights: 100%')\n"
        "    import sys\n"
        "    return {'heavy': [m for m in HEAVY if m in sys.modules]}\n"
        "w.Worker.memory = noisy\n"
        "w.main()\n"
    )
    requests = '{"do": "memory"}\n{"do": "nonsense"}\n'
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, input=requests, capture_output=True, text=True, timeout=120)
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    # What the worker does not need would only blur its start and its memory.
    assert first == {"heavy": []}
    assert second == {"error": "KeyError: 'nonsense'"}
    assert "Loading weights" in done.stderr
