"""Stages run once, in order, and go on where they were stopped."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from lit_compress.compress.stage import FILE_NAME, Stage, run_process, run_stages

STAGES = [Stage(name, "a reason", (name, "--out=x y")) for name in ("shrink", "fit", "prune")]


@pytest.fixture
def ran(monkeypatch):
    """No process is started: the verbs are written down, and end with the status of ``codes``."""

    class Ran(list):
        codes: dict[str, int] = {}

    found = Ran()

    def run(words):
        found.append(words[3])
        return found.codes.get(words[3], 0)

    monkeypatch.setattr("lit_compress.compress.stage.run_process", run)
    return found


def test_finished_stages_are_not_run_again(ran, tmp_path):
    run_stages(STAGES, tmp_path)
    run_stages(STAGES, tmp_path)
    assert ran == ["shrink", "fit", "prune"]


@pytest.mark.parametrize("status", [1, -9])
def test_a_failure_ends_the_stages_and_begins_there_again(status, ran, tmp_path):
    ran.codes = {"fit": status}
    with pytest.raises(ValueError, match=f"the stage fit to finish but it ended with status {status}"):
        run_stages(STAGES, tmp_path)
    assert ran == ["shrink", "fit"]
    ran.codes = {}
    run_stages(STAGES, tmp_path)
    assert ran == ["shrink", "fit", "fit", "prune"]


@pytest.mark.parametrize("status", [130, 143, -2, -15])
def test_an_interrupted_stage_is_an_interruption(status, ran, tmp_path):
    ran.codes = {"fit": status}
    with pytest.raises(KeyboardInterrupt):
        run_stages(STAGES, tmp_path)
    assert ran == ["shrink", "fit"]


def test_a_line_cut_short_by_a_kill_is_a_stage_to_run_again(ran, tmp_path):
    run_stages(STAGES[:2], tmp_path)
    path = tmp_path / FILE_NAME
    path.write_bytes(path.read_bytes()[:-20])
    run_stages(STAGES, tmp_path)
    assert ran == ["shrink", "fit", "fit", "prune"]
    stages = [json.loads(line)["stage"] for line in path.read_text().splitlines()]
    assert stages == ["shrink", "fit", "prune"]  # the cut line is gone


def test_other_words_are_another_stage(ran, tmp_path):
    run_stages(STAGES[:1], tmp_path)
    run_stages([Stage("shrink", "a reason", ("shrink", "--out=other"))], tmp_path)
    assert ran == ["shrink", "shrink"]


def test_the_command_can_be_copied_into_a_shell(ran, tmp_path, capsys):
    run_stages(STAGES[:1], tmp_path)
    assert "lit-compress shrink '--out=x y'" in capsys.readouterr().out


_SLOW_TO_END = """
import pathlib, sys, time
place = pathlib.Path(sys.argv[1])
(place / "begun").touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1.5)
    (place / "saved").touch()
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_handed_on_and_waited_for(number, tmp_path):
    def press():
        until = time.monotonic() + 30
        while not (tmp_path / "begun").exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    # Tests in the background of a shell ignore the key.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=press).start()
    try:
        assert run_process([sys.executable, "-c", _SLOW_TO_END, str(tmp_path)]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert Path(tmp_path / "saved").exists()
