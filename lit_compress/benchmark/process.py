"""The parent's side of a worker: start it clean, ask it, notice when it dies or hangs."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import psutil

# How often the memory of a worker is looked at: a runaway takes a few GB a second at most.
_WATCH_SECONDS = 0.1
# Settings of the training process that would change how a worker computes.
_FOREIGN = ("OMP_", "KMP_", "GOMP_", "MKL_", "OPENBLAS_", "DNNL_", "ONEDNN_", "TORCH", "PYTORCH_", "ATEN_")
_FOREIGN_CUDA = ("CUDA_LAUNCH_BLOCKING", "NVIDIA_TF32_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG")


class WorkerError(RuntimeError):
    """A worker reported an error, died or hung; the text says which."""


def worker_command() -> list[str]:
    """Return the command line of a worker."""
    return [sys.executable, "-m", "lit_compress.benchmark.worker"]


def worker_environment(device: str, threads: int, parent: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment variables of a worker.

    Args:
        device: ``"cpu"`` hides every GPU; ``"cuda"`` leaves them as the parent sees them.
        threads: CPU threads.
        parent: Variables to start from; those of this process where ``None``.

    Returns:
        The parent's variables without those that would change how the worker computes.
    """
    parent = os.environ if parent is None else parent
    kept = {k: v for k, v in parent.items() if not k.startswith(_FOREIGN) and k not in _FOREIGN_CUDA}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        kept[name] = str(threads)
    if device == "cpu":
        kept["CUDA_VISIBLE_DEVICES"] = ""
    # The worker imports what its parent imports, wherever the parent was started.
    kept["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    kept["PYTHONSAFEPATH"] = "1"
    kept["TOKENIZERS_PARALLELISM"] = "false"
    return kept


class WorkerProcess:
    """One running worker. Use it as a context manager.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads.
        command: Command line of a process that answers in the same way; the benchmark's worker where ``None``.
        memory_limit_mb: Resident memory in MB above which the worker is killed; ``None`` lets it grow.
    """

    def __init__(
        self,
        device: str,
        threads: int,
        command: Sequence[str] | None = None,
        memory_limit_mb: float | None = None,
    ) -> None:
        # A file, not a pipe: nobody has to drain it while the worker writes warnings.
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            list(command or worker_command()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=worker_environment(device, threads),
            text=True,
            encoding="utf-8",
        )
        self._asked = "start"
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._overrun: str | None = None
        threading.Thread(target=self._read, daemon=True).start()
        if memory_limit_mb is not None:
            threading.Thread(target=self._watch, args=(memory_limit_mb,), daemon=True).start()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # Interrupted: whoever waits for workers to finish waits for each of them.
            self._process.kill()
        self.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put(None)

    def _watch(self, limit_mb: float) -> None:
        """Kill the worker before the machine runs out of memory and kills somebody else."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            while self._process.poll() is None:
                used = process.memory_info().rss / 1e6
                if used > limit_mb:
                    self._overrun = f"took {used:,.0f} MB of memory, its limit was {limit_mb:,.0f} MB"
                    self._process.kill()
                    return
                time.sleep(_WATCH_SECONDS)

    def send(self, do: str, **arguments: Any) -> None:
        """Send a request; fetch its reply with :meth:`receive`."""
        assert self._process.stdin is not None
        self._asked = arguments.get("workload", do)
        try:
            print(json.dumps({"do": do, **arguments}), file=self._process.stdin, flush=True)
        except OSError as error:
            raise WorkerError(self._obituary()) from error

    def receive(self, timeout: float) -> dict[str, Any]:
        """Return the reply to the last request.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            WorkerError: The worker reported an error, died, or did not answer in time.
        """
        try:
            line = self._replies.get(timeout=timeout)
        except queue.Empty:
            raise WorkerError(f"no answer to {self._asked!r} within {timeout:g} s") from None
        if line is None:
            raise WorkerError(self._obituary())
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{self._asked!r} failed: {reply['error']}")
        return reply

    def request(self, do: str, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send a request and return its reply."""
        self.send(do, **arguments)
        return self.receive(timeout)

    def _obituary(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return f"the worker closed its output during {self._asked!r}"
        if self._overrun is not None:
            return f"the worker {self._overrun}, and was ended during {self._asked!r}"
        if code < 0:
            hint = ", perhaps for lack of memory" if -code == signal.SIGKILL else ""
            reason = f"was killed by {signal.Signals(-code).name}{hint}"
        else:
            reason = f"ended with exit status {code}"
        return f"the worker {reason} during {self._asked!r}{self._last_words()}"

    def _last_words(self) -> str:
        self._stderr.seek(max(0, self._stderr.seek(0, os.SEEK_END) - 4000))
        lines = self._stderr.read().decode("utf-8", errors="replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def close(self) -> None:
        """End the worker, at once if it does not end by itself."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._stderr.close()
