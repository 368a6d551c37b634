import random
import struct
import sys

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from lit_compress.report.groups import group_rows
from lit_compress.report.labels import place_labels
from lit_compress.report.plots import draw_plots
from tests.report.rows import GPU, make_row, make_teacher


def rows(count=3, **changes):
    return [make_teacher(**changes)] + [
        make_row(
            model=f"s{i}",
            run=f"runs/{i}",
            quality__value=0.8 + i / 100,
            cpu__latency_ms__p50=3 + i,
            **changes,
        )
        for i in range(count)
    ]


def png_size(path):
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return struct.unpack(">II", head[16:])


def test_three_plots_per_group_as_png_and_svg(tmp_path):
    other = rows(environment__cpu="Slow CPU")
    written = draw_plots(group_rows(rows(4) + other), tmp_path)
    names = [
        f"quality_{cost}{suffix}.{kind}"
        for suffix in ("", "_2")
        for cost in ("latency", "size", "memory")
        for kind in ("png", "svg")
    ]
    assert [path.name for path in written] == names
    assert all(png_size(path) == (1200, 780) for path in written if path.suffix == ".png")
    assert all("<svg" in path.read_text()[:1000] for path in written if path.suffix == ".svg")


def test_same_rows_give_the_same_svg(tmp_path):
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        draw_plots(group_rows(rows()), tmp_path / name)
        texts.append((tmp_path / name / "quality_size.svg").read_text())
    assert texts[0] == texts[1]


def test_gpu_plots_where_there_are_gpu_figures(tmp_path):
    names = [path.name for path in draw_plots(group_rows(rows(gpu=GPU)), tmp_path)]
    assert {"quality_gpu_latency.png", "quality_gpu_memory.svg"} <= set(names)


def test_wide_range_of_latencies_and_equal_qualities_can_be_drawn(tmp_path):
    far = make_row(model="far", cpu__latency_ms__p50=900.0)
    same = [make_row(model=f"$m_{i}$", run=f"runs/{i}", runtime="onnx-int8") for i in range(2)]
    assert len(draw_plots(group_rows([far, *same]), tmp_path)) == 6
    text = (tmp_path / "quality_latency.svg").read_text()
    # Matplotlib writes each text as a comment beside its outlines.
    assert "<!-- 10 -->" in text and "<!-- 100 -->" in text
    assert "math" not in text and "$m_0$ in onnx-int8" in text


def test_nothing_to_compare_draws_nothing(tmp_path):
    assert draw_plots(group_rows([make_row(), make_teacher(cpu=None, bytes=None)]), tmp_path) == []


def test_names_cover_neither_each_other_nor_points_nor_lines():
    draw = random.Random(0)
    for trial in range(5):
        figure = Figure(figsize=(8, 5), dpi=100)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        points = [(draw.random(), draw.random()) for _ in range(14)]
        axes.set_xlim(-0.2, 1.2)
        axes.set_ylim(-0.2, 1.2)
        place_labels(axes, points, [f"student number {i}" for i in range(14)], [((0, 0.5), (1, 0.5))])
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
        assert len(boxes) >= 10, trial
        for index, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[index + 1 :])
            assert not any(box.contains(*axes.transData.transform(point)) for point in points)
            assert not box.y0 < axes.transData.transform((0, 0.5))[1] < box.y1 or box.x1 < axes.bbox.x0
            assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1


def test_refuses_plots_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "lit-compress\[report\]"'):
        draw_plots(group_rows(rows()), tmp_path)
