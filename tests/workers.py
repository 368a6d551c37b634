"""Scripts of tests that run in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path


def run_worker(module, *words):
    """Run a module of the tests as a program with one thread and no GPU; it has to end well."""
    done = subprocess.run(
        [sys.executable, "-m", module, *map(str, words)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
