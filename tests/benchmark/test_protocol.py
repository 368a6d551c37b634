import json

import numpy as np
import pytest

from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol, typical_rows


def test_typical_rows_have_the_quantiles_of_the_data():
    lengths = np.random.default_rng(0).lognormal(3, 0.5, 1000).astype(int) + 1
    chosen = lengths[typical_rows(lengths, 32)]
    for percentile in (10, 50, 90):
        assert abs(np.percentile(chosen, percentile) - np.percentile(lengths, percentile)) <= 2
    assert list(chosen) == sorted(chosen)


def test_typical_rows_of_few_texts_repeat_them_evenly():
    assert typical_rows([7, 3], 4) == [1, 1, 0, 0]


def test_row_describes_the_protocol_in_plain_data():
    described = Protocol((3, 5), threads=2).to_dict()
    assert described["lengths"] == [3, 5]
    assert described["batches"] == [8, 32] and described["fixed_lengths"] == [32, 128, 384]
    assert json.loads(json.dumps(described)) == described
    assert described["clock"] == "wall time"
    assert Protocol((3,), threads=1).to_dict()["clock"] == "cpu time"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": ()}, "at least one text"),
        ({"lengths": (4, 0)}, "at least one text"),
        ({"lengths": (4,), "threads": 0}, "threads to be at least 1 but got 0"),
        ({"lengths": (4,), "batches": (8, 0)}, r"batches of at least 1 each but got \[8, 0\]"),
        ({"lengths": (4,), "fixed_lengths": (-1,)}, "fixed_lengths of at least 1"),
        ({"lengths": (4,), "rounds": 0}, "rounds to be at least 1 but got 0"),
        ({"lengths": (4,), "devices": ("tpu",)}, "devices among cpu, cuda but got tpu"),
    ],
)
def test_refuses_a_protocol_that_measures_nothing(settings, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**settings)


def test_refuses_data_without_rows():
    with pytest.raises(ValueError, match="rows to take text lengths from but got none"):
        typical_rows([])


def test_refuses_models_that_share_a_name():
    twins = [Candidate("a", "x"), Candidate("a", "y")]
    with pytest.raises(ValueError, match="unique names but got a in torch-fp32, a in torch-fp32; rename"):
        measure(twins, None, Protocol((4,)))


def test_refuses_an_unknown_runtime():
    with pytest.raises(ValueError, match=r"onnx-int8, .* but got 'onnx-int9'; did you mean onnx-int8\?"):
        measure([Candidate("a", "x", runtime="onnx-int9")], None, Protocol((4,)))


def test_refuses_no_models():
    with pytest.raises(ValueError, match="at least one model"):
        measure([], None, Protocol((4,)))


def test_refuses_lengths_of_other_texts():
    with pytest.raises(ValueError, match="lengths of the protocol's 2 texts for 'a' but got 1"):
        measure([Candidate("a", "x", lengths=(4,))], None, Protocol((4, 5)))


def test_refuses_more_threads_than_cores():
    with pytest.raises(ValueError, match="threads=999"):
        measure([Candidate("a", "x")], None, Protocol((4,), threads=999))


def test_refuses_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="CUDA device but torch finds none"):
        measure([Candidate("a", "x")], None, Protocol((4,), devices=("cuda",)))
