import csv
import io

import pytest
from rich.console import Console

from lit_compress.report.columns import columns_of
from lit_compress.report.groups import group_rows
from lit_compress.report.table import comma_separated, markdown, print_group
from tests.report.rows import GPU, make_failed, make_row, make_teacher, ratio_of

ORDER = ["model", "method", "size MB", "CPU ms", "GPU ms", "RAM MB", "VRAM MB", "accuracy"]


def cells(row, rows=None):
    return {column.title: column.cell(row) for column in columns_of(rows or [row])}


def test_columns_come_in_the_promised_order():
    assert [column.title for column in columns_of([make_row()])][:8] == ORDER


def test_runtime_and_threads_are_columns_where_they_differ():
    rows = [make_teacher(), make_row(runtime="onnx-int8"), make_row(protocol__threads=2)]
    titles = [column.title for column in columns_of(rows)]
    assert titles[:5] == ["model", "method", "runtime", "threads", "size MB"]
    written = cells(rows[1], rows)
    assert (written["runtime"], written["threads"]) == ("onnx-int8", "1")


def test_figures_as_they_are_written():
    written = cells(make_row())
    assert written["model"] == "student (3×384)"
    assert written["size MB"] == "70.0"
    assert written["CPU ms"] == "4.00 (p90 6.00)"
    # 0.5 of the baseline's time, surely between 0.4 and 0.8: 2 times faster, 1.25 to 2.5.
    assert written["× faster CPU"] == "2.00 (1.25–2.50, faster)"
    assert written["× faster CPU, 32 at once"] == "2.00 (1.90–2.10, faster)"
    assert written["× smaller"] == "1.33"
    assert written["quality kept"] == "98.0 %"
    assert written["cost s"] == "12.5"


def test_faster_is_only_said_where_the_row_says_so():
    row = make_row(ratio__cpu_latency=ratio_of(0.98, 0.9, 1.05))
    assert cells(row)["× faster CPU"] == "1.02 (0.95–1.11, no difference)"


def test_what_was_not_measured_is_a_dash_and_no_zero():
    written = cells(make_row(), [make_row(), make_teacher()])
    assert written["GPU ms"] == written["VRAM MB"] == "–"
    failed = cells(make_failed(quality=None, seconds=None))
    assert set(list(failed.values())[2:]) == {"–"}
    assert failed["model"] == "broken (failed)"


def test_figures_that_could_not_be_taken_leave_the_others():
    written = cells(make_row(cpu__rss_mb=None, cpu__throughput={}, cpu__fixed={}, bytes=None))
    assert (written["RAM MB"], written["size MB"], written["CPU ms"]) == ("–", "–", "4.00 (p90 6.00)")


def test_gpu_figures_where_there_are_any():
    row = make_row(gpu=GPU, ratio={"gpu_latency": ratio_of(0.25, 0.2, 0.5), "gpu_memory": 0.5})
    written = cells(row)
    assert (written["GPU ms"], written["VRAM MB"]) == ("1.50 (p90 2.00)", "321.0")
    assert written["× faster GPU"] == "4.00 (2.00–5.00, faster)"
    assert written["× less VRAM"] == "2.00"


def test_markdown_is_a_table_with_its_conditions():
    text = markdown(group_rows([make_teacher(), make_row(method="a|b", model="<b>x")]))
    lines = text.splitlines()
    assert lines[0].startswith("| model | method | size MB | CPU ms | GPU ms | RAM MB | VRAM MB | accuracy |")
    assert lines[3].startswith("| &lt;b>x (3×384) | a\\|b | 70.0 |")
    assert len({line.replace("\\|", "").count("|") for line in lines[:4]}) == 1
    assert "Fast CPU (2 cores)" in text and "1 thread, cpu time" in text and "accuracy on 872 rows" in text


def test_markdown_says_why_a_model_is_missing_and_what_was_odd():
    rows = [
        make_failed(error="cpu: worker was killed by SIGKILL"),
        make_row(warnings=["memory grew by 120 MB"]),
    ]
    text = markdown(group_rows(rows))
    assert "- broken failed: cpu: worker was killed by SIGKILL" in text
    assert "- student: memory grew by 120 MB" in text


def test_csv_reads_back_with_raw_numbers():
    text = comma_separated(group_rows([make_teacher(), make_row(model='odd, "name"', runtime="onnx-int8")]))
    teacher, student = csv.DictReader(io.StringIO(text))
    assert student["model"] == 'odd, "name"'
    assert (student["runtime"], student["threads"]) == ("onnx-int8", "1")
    assert float(student["size_mb"]) == 70.0
    assert float(student["cpu_ms"]) == 4.0 and float(teacher["cpu_ms"]) == 8.0
    assert student["gpu_ms"] == "" and teacher["cpu_speedup"] == ""
    assert float(student["cpu_speedup"]) == 2.0
    assert (student["cpu_speedup_low"], student["cpu_speedup_verdict"]) == ("1.25", "faster")
    assert (student["cpu_p99_ms"], student["macs"], student["macs_length"]) == ("9.0", "1400000000", "128")
    assert (student["role"], student["metric"], student["seed"]) == ("student", "accuracy", "0")
    assert student["group"] == teacher["group"] != ""


@pytest.mark.parametrize("width", [80, 100, 200])
def test_terminal_table_shows_every_figure_whole(width):
    console = Console(width=width, file=io.StringIO())
    same = make_row(model="same", runtime="onnx-int8", ratio__cpu_latency=ratio_of(1.01, 0.98, 1.04))
    named = make_row(model="long_[name]-3L", gpu=GPU)
    rows = [make_teacher(), named, same, make_failed(error="cpu: it [died]")]
    (group,) = group_rows(rows)
    print_group(group, console)
    text = console.file.getvalue()
    figures = (
        "4.00",
        "p90 6.00",
        "150.0",
        "0.8600",
        "1.25–2.50",
        "98.0 %",
        "long_[name]",
        "Fast CPU",
        "int8",
    )
    for figure in figures:
        assert figure in text
    assert "broken failed: cpu: it [died]" in text
    assert "≈ 0.99" in text and "≈ no difference" in text
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    # In a narrow terminal the other columns come in further tables with the names again.
    assert text.count("long_[name]") == {80: 3, 100: 2, 200: 1}[width]


def test_terminal_leaves_out_what_nobody_measured():
    console = Console(width=200, file=io.StringIO())
    print_group(group_rows([make_teacher(), make_row()])[0], console)
    text = console.file.getvalue()
    assert "CPU" in text and "GPU" not in text and "VRAM" not in text
    assert "Measuring took 25 s." in text
