import csv
import io

import pytest
from rich.console import Console

from lit_compress.report.columns import columns_of
from lit_compress.report.groups import group_rows
from lit_compress.report.table import comma_separated, markdown, print_group
from tests.benchmark.conftest import make_row, make_teacher

ORDER = ["model", "method", "size MB", "CPU ms", "GPU ms", "RAM MB", "VRAM MB", "accuracy"]


def cells(row, rows=None):
    return {column.title: column.cell(row) for column in columns_of(rows or [row])}


def test_columns_come_in_the_promised_order():
    assert [column.title for column in columns_of([make_row()])][:8] == ORDER


def test_figures_as_they_are_written():
    written = cells(make_row())
    assert written["model"] == "student (3×384)"
    assert written["size MB"] == "70.0"
    assert written["CPU ms"] == "4.00 (p90 6.00)"
    # 0.5 of the teacher's time, 0.4 to 0.8 in the middle of the rounds: 2 times faster, 1.25 to 2.5.
    assert written["× faster CPU"] == "2.00 (1.25–2.50)"
    assert written["× faster CPU, 32 at once"] == "2.00 (1.90–2.10)"
    assert written["× smaller"] == "1.33"
    assert written["quality kept"] == "98.0 %"


def test_what_was_not_measured_is_a_dash_and_no_zero():
    written = cells(make_row(), [make_row(), make_teacher()])
    assert written["GPU ms"] == written["VRAM MB"] == "–"
    failed = cells(make_row(cpu=None, bytes=None, quality=None, ratio={}, error="cpu: died"))
    assert set(list(failed.values())[2:]) == {"–"}
    assert failed["model"] == "student (failed)"


def test_gpu_figures_where_there_are_any():
    gpu = {
        "latency_ms": {"p50": 1.5, "p90": 2.0},
        "vram_mb": 321.0,
        "throughput": {"texts_per_second": 1, "batch": 32},
    }
    row = make_row(gpu=gpu, ratio={"gpu_latency": {"median": 0.25, "p10": 0.2, "p90": 0.5}})
    written = cells(row)
    assert (written["GPU ms"], written["VRAM MB"]) == ("1.50 (p90 2.00)", "321.0")
    assert written["× faster GPU"] == "4.00 (2.00–5.00)"


def test_markdown_is_a_table_with_its_conditions():
    text = markdown(group_rows([make_teacher(), make_row(method="a|b")]))
    lines = text.splitlines()
    assert lines[0].startswith("| model | method | size MB | CPU ms | GPU ms | RAM MB | VRAM MB | accuracy |")
    assert lines[3].startswith("| student (3×384) | a\\|b | 70.0 |")
    assert len({line.replace("\\|", "").count("|") for line in lines[:4]}) == 1
    assert "Fast CPU (2 cores)" in text and "1 thread, cpu time" in text and "accuracy on 872 rows" in text


def test_markdown_says_why_a_model_is_missing():
    text = markdown(group_rows([make_row(cpu=None, ratio={}, error="cpu: worker was killed by SIGKILL")]))
    assert "- student failed: cpu: worker was killed by SIGKILL" in text


def test_csv_reads_back_with_raw_numbers():
    text = comma_separated(group_rows([make_teacher(), make_row(model='odd, "name"')]))
    teacher, student = csv.DictReader(io.StringIO(text))
    assert student["model"] == 'odd, "name"'
    assert float(student["size_mb"]) == 70.0
    assert float(student["cpu_ms"]) == 4.0 and float(teacher["cpu_ms"]) == 8.0
    assert student["gpu_ms"] == "" and teacher["cpu_speedup"] == ""
    assert float(student["cpu_speedup"]) == 2.0
    assert (student["role"], student["metric"], student["seed"]) == ("student", "accuracy", "0")
    assert student["group"] == teacher["group"] != ""


@pytest.mark.parametrize("width", [80, 100, 200])
def test_terminal_table_shows_every_figure_whole(width):
    console = Console(width=width, file=io.StringIO())
    broken = make_row(model="broken", cpu=None, ratio={}, error="cpu: it [died]")
    (group,) = group_rows([make_teacher(), make_row(model="long_[name]-3L"), broken])
    print_group(group, console)
    text = console.file.getvalue()
    for figure in ("4.00", "p90 6.00", "150.0", "0.8600", "1.25–2.50", "98.0 %", "long_[name]", "Fast CPU"):
        assert figure in text
    assert "broken failed: cpu: it [died]" in text
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    # In a narrow terminal the ratios come in a second table with the names again.
    assert text.count("soft targets") == 2 and text.count("long_[name]") == (2 if width < 120 else 1)
