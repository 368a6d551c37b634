"""The picture of kept heads and neurons: what is drawn is what the rows say."""

import numpy as np
import pytest

from lit_compress.report.groups import group_rows
from lit_compress.report.map_plots import draw_maps, map_figure, pruned
from tests.report.rows import make_row, make_teacher

SHAPE = {"heads": [[1, 0, 1], [0, 0]], "neurons": [[3, 8], [8, 8]]}


def cut(model="cut", **changes):
    return make_row(model=model, shape__heads=SHAPE["heads"], shape__neurons=SHAPE["neurons"], **changes)


def test_cells_and_bars_are_those_of_the_shape():
    left, right = map_figure({"cut": SHAPE}).axes
    cells = np.ma.filled(left.collections[0].get_array().astype(float), np.nan).reshape(2, 3)
    np.testing.assert_array_equal(cells, [[1, 0, 1], [0, 0, np.nan]])
    assert [bar.get_width() for bar in right.patches] == [8, 8, 3, 8]
    assert [text.get_text() for text in right.texts] == ["3", "8"]
    assert left.get_title(loc="left") == "cut: 2 of 5 heads and 11 of 16 neurons kept"
    # The first layer is on top.
    assert left.get_ylim() == (2, 0) and right.get_ylim() == (2, 0)


@pytest.mark.parametrize("key", ["heads", "neurons"])
def test_one_of_both_is_enough(key):
    axes = map_figure({"cut": {key: SHAPE[key]}}).axes
    assert [a.axison for a in axes] == [key == "heads", key == "neurons"]


def test_files_of_each_group_with_pruned_models(tmp_path):
    slow = {"environment__cpu": "Slow CPU"}
    groups = group_rows([make_teacher(), cut(), make_teacher(**slow), cut(**slow)])
    names = [path.name for path in draw_maps(groups, tmp_path)]
    assert names == ["maps_heads.png", "maps_heads.svg", "maps_heads_2.png", "maps_heads_2.svg"]
    assert (tmp_path / names[0]).read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / names[1]).read_text()[:1000]


def test_nothing_is_drawn_without_pruned_models(tmp_path):
    assert draw_maps(group_rows([make_teacher(), make_row()]), tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_several_runtimes_is_one_line():
    rows = [make_teacher(), cut(), cut(runtime="onnx-fp32"), cut("other")]
    assert list(pruned(rows)) == ["cut", "other"]
