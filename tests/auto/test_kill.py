"""A search whose process is killed: what it had written down is kept, and the end is the same."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.auto.conftest import ROUTES, measure_one_by_one

pytestmark = pytest.mark.slow

SEARCH = """
import sys
from pathlib import Path
import pytest
from tests.auto.conftest import Scripted, measure_one_by_one, script_routes
with pytest.MonkeyPatch.context() as patch:
    scripted = Scripted(Path(sys.argv[1]))
    script_routes(scripted, patch)
    measure_one_by_one(patch)
    scripted.auto(0.97)
"""


def kill_at(scripted, line):
    """Run a search in a process of its own, and kill it when a worker has got a request."""
    process = subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(scripted.run)],
        cwd=Path(__file__).parents[2],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        while line not in scripted.log:
            assert process.poll() is None, "the search ended before it could be killed"
            time.sleep(0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # the worker that hangs


def contents(scripted):
    """The bytes of both files, and the routes in them."""
    found = {}
    for name, key in (("quality.jsonl", "route"), ("results.jsonl", "runtime")):
        path = scripted.out / name
        content = path.read_bytes() if path.is_file() else b""
        found[name] = content, [record[key] for record in scripted.records(name)]
    return found


def end(scripted):
    """What a search has come to, without the time of day and the speed of the machine."""
    judged = {line["route"]: (line["bytes"], line["quality"]) for line in scripted.records("quality.jsonl")}
    rows = {row["runtime"]: row for row in scripted.records("results.jsonl")}
    measured = {
        name: (row["quality"], row["bytes"], row["cpu"]["rss_mb"], row["ratio"]) for name, row in rows.items()
    }
    return judged, measured, scripted.exports[-1]


@pytest.mark.parametrize(
    ("do", "judged", "measured"),
    [
        ("predict", ["torch-fp32", "torch-bf16"], []),
        ("time", list(ROUTES), ["torch-fp32", "torch-bf16"]),
    ],
    ids=["while judging", "while measuring"],
)
def test_killed_search_goes_on_where_it_was_and_ends_as_the_whole_one(
    do, judged, measured, scripted, monkeypatch
):
    scripted.behave(onnx_fp32={"do": do, "then": "hang"})
    kill_at(scripted, f"onnx-fp32 {do}")
    before = contents(scripted)
    assert before["quality.jsonl"][1] == judged and before["results.jsonl"][1] == measured

    scripted.behave()
    (scripted.run / "log").unlink()
    measure_one_by_one(monkeypatch)
    scripted.auto(0.97)
    repeated = {f"{route} predict" for route in judged}
    repeated |= {f"{route} time" for route in measured if route != "torch-fp32"}  # beside which all are timed
    assert not repeated & set(scripted.log)
    for name, (content, _) in contents(scripted).items():
        assert content.startswith(before[name][0])
    resumed = end(scripted)

    shutil.rmtree(scripted.out)
    scripted.auto(0.97)
    assert end(scripted) == resumed
