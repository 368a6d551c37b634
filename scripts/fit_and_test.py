"""What the experiment scripts share: one `lit-compress fit`, then one evaluation on test, unless done before."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def fit_and_test(folder: Path, arguments: Sequence[str]) -> bool:
    """Fit a run and evaluate its kept checkpoint on test, once, in float32.

    Args:
        folder: The run folder; a run that has its `test_metrics.json` is not touched, one that was stopped goes on.
        arguments: Arguments of `lit-compress fit` without the run folder.

    Returns:
        Whether the run is there with its metrics.
    """
    if (folder / "test_metrics.json").is_file():
        print(f"{folder.name}: done before", flush=True)
        return True
    started = time.time()
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    python = [sys.executable, "-m", "lit_compress"]
    quiet = ["--ckpt_path=auto", "--benchmark.at_end=false", "--trainer.enable_progress_bar=false"]
    fit = [*python, "fit", *arguments, f"--run_dir={folder}", *quiet]
    test = [*python, "test", f"--config={folder}/config.yaml", "--ckpt_path=best"]
    test.append("--trainer.precision=32-true")
    with log.open("a") as stream:
        done = all(
            subprocess.run(words, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode == 0
            for words in (fit, test)
        )
    state = "done" if done else f"FAILED (see {log})"
    print(f"{folder.name}: {state} in {time.time() - started:.0f} s", flush=True)
    return done


def experiment_parser(description: str | None, runs: str) -> argparse.ArgumentParser:
    """Declare what every experiment on SST-2 asks for; `--only` is its own.

    Args:
        description: The docstring of the script.
        runs: Where its run folders go by default.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder with train.tsv, dev.tsv, test.tsv")
    parser.add_argument(
        "--teacher", default="runs/sst2_sentences/teacher/model", help="fine-tuned model (%(default)s)"
    )
    parser.add_argument("--runs", default=runs, help="where the run folders go (%(default)s)")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="more arguments of every fit")
    return parser
