import re

from lit_compress.report.maps import bits_map, heads_map, maps
from tests.report.rows import make_row


def test_heads_that_are_left_by_hand():
    text = heads_map("pruned <b>", [[1, 0, 1], [0, 0, 0], [1, 1]])
    assert "pruned &lt;b&gt;: 4 of 8 heads kept" in text
    assert re.findall(r"(\d) of (\d)</td>", text) == [("2", "3"), ("0", "3"), ("2", "2")]
    assert text.count('class="head kept"') == 4 and text.count('class="head gone"') == 4
    # The shorter layer is filled up, so that its count stands in its column.
    assert text.count("<td></td>") == 1


def test_neurons_stand_beside_the_heads_as_bars():
    text = heads_map("pruned", [[1, 0], [0, 0]], [[16, 64], [0, 64]])
    assert "pruned: 1 of 4 heads and 16 of 128 neurons kept" in text
    assert re.findall(r"width:([\d.]+)%", text) == ["25.0", "0.0"]
    assert re.findall(r'class="count">(\d+ of \d+)<', text) == ["1 of 2", "16 of 64", "0 of 2", "0 of 64"]
    assert re.findall(r'<th scope="col">(.*?)</th>', text) == ["layer", "1", "2", "", "neurons"]


def test_neurons_without_heads():
    text = maps([make_row(shape__neurons=[[3, 4], [4, 4]])])
    assert (
        "student: 7 of 8 neurons kept" in text and "heads" not in text.split("<figcaption>")[1].split("<")[0]
    )


def test_bits_by_layer_and_part():
    bits = {
        f"encoder.layer.{n}.{part}": 4 + 4 * n for n in range(2) for part in ("attention.query", "output")
    }
    text = bits_map("mixed", bits | {"classifier": 16})
    assert "mixed: 4 to 16 bits per weight" in text
    columns = re.findall(r'<th scope="col">(.*?)</th>', text)
    assert [column.replace("<wbr>", "") for column in columns] == ["layer", "attention.query", "output"]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    assert [(name, re.findall(r">(\d+)</td>", cells)) for name, cells in rows] == [
        ("0", ["4", "4"]),
        ("1", ["8", "8"]),
        ("classifier", ["16"]),
    ]


def test_layers_without_numbers_and_missing_parts():
    text = bits_map("odd", {"head": 8, "0.a": 2, "1.b": 4})
    assert "odd: 2 to 8 bits" in text and ">8</td>" in text


def test_only_rows_that_say_so_are_drawn_once_per_model():
    pruned = {"shape__heads": [[1, 0]]}
    rows = [
        make_row(**pruned),
        make_row(runtime="onnx-int8", **pruned),
        make_row(model="mixed", shape__bits={"a": 8}),
    ]
    text = maps([*rows, make_row(model="plain")])
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == [
        "student: 1 of 2 heads kept",
        "mixed: 8 bits per weight",
    ]
    assert maps([make_row()]) == ""
