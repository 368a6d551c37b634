"""Zeros that are still in the weights are told, and never taken for speed."""

import re

import pytest

from lit_compress.benchmark.facts import model_facts
from lit_compress.benchmark.intervals import NO_DIFFERENCE, Ratio
from lit_compress.report.columns import all_columns, columns_of, zeros
from lit_compress.report.groups import group_rows
from lit_compress.report.page import page
from lit_compress.report.table import comma_separated, markdown
from tests.report.rows import make_row, make_teacher
from tests.tiny import tiny_bert

MASKED = {"params": 1_000_000, "nonzero_params": 100_000}


def cell(row, key):
    return next(column.cell(row) for column in all_columns([row]) if column.key == key)


def test_share_of_zeros():
    assert zeros(make_row(**MASKED)) == pytest.approx(0.9)
    assert cell(make_row(**MASKED), "zeros") == "90 %"


@pytest.mark.parametrize(
    "counts", [{"nonzero_params": 16_950_000}, {"nonzero_params": None}, {"params": None}, {}]
)
def test_a_padding_row_is_no_sparsity(counts):
    row = make_row(**counts)
    assert zeros(row) is None and cell(row, "zeros") == "–"
    assert "zeros" not in [column.key for column in columns_of([row])]


def test_table_page_and_csv_say_that_nothing_was_removed():
    groups = group_rows([make_teacher(), make_row(model="masked", **MASKED)])
    head, _, *body = markdown(groups).splitlines()
    at = head.split("|").index(" zeros, not removed ")
    assert [line.split("|")[at].strip() for line in body[:2]] == ["–", "90 %"]
    text = page(groups)
    assert "0.10 M: sparsity 90 % (zeros, not removed)" in text
    lines = comma_separated(groups).splitlines()
    assert "zeros" in lines[0].split(",") and re.search(r",0\.9,", lines[2])


def test_the_verdict_of_a_masked_model_comes_from_its_times():
    """Nine tenths of the weights are zero and the times are those of the baseline: no difference."""
    rounds = [1.01, 0.99, 1.0, 1.02, 0.98]
    ratio = vars(Ratio.of(rounds, less_is_faster=True, seed=0))
    row = make_row(model="masked", **MASKED, ratio__cpu_latency=ratio)
    assert ratio["verdict"] == NO_DIFFERENCE
    parts = next(column.parts(row) for column in all_columns([row]) if column.key == "cpu_speedup")
    assert parts[0] == "1.00" and parts[-1] == NO_DIFFERENCE
    text = page(group_rows([make_teacher(), row]))
    assert "masked" in text and ">faster<" not in text.split("masked", 1)[1].split("</tr>", 1)[0]


def test_zeros_are_multiplied_all_the_same():
    model = tiny_bert(layers=2).eval()
    dense = model_facts(model)
    for layer in model.bert.encoder.layer:
        layer.output.dense.weight.data[:, 6:] = 0
        layer.intermediate.dense.weight.data[6:] = 0
    masked = model_facts(model)
    assert masked["macs"] == dense["macs"] and masked["params"] == dense["params"]
    assert masked["nonzero_params"] < dense["nonzero_params"]
