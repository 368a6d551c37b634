import copy
from dataclasses import replace

import pytest

from lit_compress.benchmark import environment
from lit_compress.benchmark.environment import describe_environment, runtime_versions
from lit_compress.benchmark.folders import local_folder, weight_fingerprint
from lit_compress.benchmark.plan import is_measured, sessions_of
from lit_compress.benchmark.protocol import Candidate, Protocol
from tests.report.rows import make_row


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (4, [4]), (5, [3, 2]), (9, [3, 3, 3])])
def test_sessions_hold_four_models_at_most_and_everyone_once(count, sizes):
    candidates = [Candidate(str(n), "x") for n in range(count)]
    sessions = sessions_of(candidates)
    assert sorted(map(len, sessions), reverse=True) == sizes
    assert sorted(c.name for session in sessions for c in session) == [str(n) for n in range(count)]


PROTOCOL = Protocol((3, 5))
HERE = describe_environment()


@pytest.fixture
def candidate(fake_folder):
    return Candidate("student", fake_folder("student"))


@pytest.fixture
def row(candidate):
    weights = weight_fingerprint(local_folder(candidate.folder))
    facts = {"environment": copy.deepcopy(HERE), "protocol": PROTOCOL.to_dict()}
    return make_row(weights=weights, **facts)


def test_row_measured_alike_counts(candidate, row):
    assert is_measured(candidate, [make_row(), row], PROTOCOL, HERE | {"load_before": 7.0}, judged=True)
    # How to stop is not what was measured.
    assert is_measured(candidate, [row], Protocol((3, 5), timeout=7, memory_limit_mb=9), HERE, judged=True)


@pytest.mark.parametrize(
    "other",
    [
        {"weights": "bbbb"},
        {"runtime": "onnx-int8"},
        {"model": "other"},
        {"is_baseline": True},
        {"error": "it crashed"},
        {"quality": None},
        {"environment__cpu": "Slow CPU"},
        {"environment__torch": "2.12.0"},
        {"protocol__threads": 2},
        {"protocol__lengths": [3, 6]},
        {"protocol__data": "test 1234"},
    ],
)
def test_row_measured_otherwise_does_not(candidate, row, other):
    for path, value in other.items():
        *parents, last = path.split("__")
        place = row
        for parent in parents:
            place = place[parent]
        place[last] = value
    assert not is_measured(candidate, [row], PROTOCOL, HERE, judged=True)


def test_quality_does_not_matter_where_there_are_no_data(candidate, row):
    assert is_measured(candidate, [row | {"quality": None}], PROTOCOL, HERE, judged=False)


def test_a_row_of_other_libraries_of_its_own_runtime_is_stale(candidate, row, monkeypatch):
    versions = {"openvino": "2026.4.1", "nncf": "3.2.0", "onnxruntime": "1.31.1"}
    monkeypatch.setattr(environment, "library_version", versions.get)
    here = replace(candidate, runtime="openvino-int8")
    row |= {"runtime": here.runtime, "libraries": {"openvino": "2026.4.1", "nncf": "3.2.0"}}
    assert is_measured(here, [row], PROTOCOL, HERE, judged=True)
    # A row of an earlier release does not say what it was measured with.
    assert not is_measured(here, [{**row, "libraries": {}}], PROTOCOL, HERE, judged=True)
    versions["onnxruntime"] = "1.32.0"  # of another runtime
    assert is_measured(here, [row], PROTOCOL, HERE, judged=True)
    versions["openvino"] = "2026.5.0"
    assert not is_measured(here, [row], PROTOCOL, HERE, judged=True)


def test_rows_say_what_their_runtime_was(monkeypatch):
    monkeypatch.setattr(environment, "library_version", {"onnx": "1.20", "onnxruntime": "1.31"}.get)
    assert runtime_versions("onnx-int8") == {"onnx": "1.20", "onnxruntime": "1.31"}
    assert runtime_versions("torch-fp32") == {}
