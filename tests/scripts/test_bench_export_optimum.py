"""The page about Optimum: every file is compared with the best of its rivals, and sizes count all of its parts."""

import pytest

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def script():
    import bench_export_optimum

    return bench_export_optimum


@pytest.fixture
def files(tmp_path):
    made = {}
    for name in ("onnx-fp32", "onnx-int8", "plain", "O2", "O3", "int8", "int8-per-channel"):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(bytes(1_000_000))
        made[name] = {"file": str(path), "seconds": 12.3}
    (tmp_path / "onnx-fp32.onnx.data").write_bytes(bytes(2_000_000))
    return made


TIMES = {
    "eager PyTorch": 0.040,
    "onnx-fp32": 0.020,
    "onnx-int8": 0.010,
    "plain": 0.022,
    "O2": 0.021,
    "O3": 0.026,
    "int8": 0.012,
    "int8-per-channel": 0.009,
}


def rows(text):
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return {
        cells[0]: cells[1:] for cells in ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    }


def test_ratios_are_to_the_best_rival(script, files):
    times = {name: [seconds * noise for noise in (0.99, 1, 1.01)] for name, seconds in TIMES.items()}
    found = rows(script.table(times, files, dict.fromkeys(TIMES, 0.995)))
    assert list(found) == list(TIMES)
    assert found["onnx-fp32"][-2].startswith("1.05× (") and found["onnx-fp32"][-2].endswith(": O2")
    assert found["onnx-int8"][-2].startswith("0.90× (") and found["onnx-int8"][-2].endswith(
        ": int8-per-channel"
    )
    assert found["onnx-fp32"][1] == "3.0" and found["O2"][1] == "1.0"
    assert found["O2"][-2] == "–" and found["O2"][0] == "Optimum"
    assert found["onnx-int8"][2].startswith("10.00 (") and found["onnx-int8"][3].startswith("4.00×")
    assert found["plain"][-1] == "99.5 %"


def test_a_page_says_how_it_was_made(script, files, tmp_path):
    times = {size: {name: [seconds] * 3 for name, seconds in TIMES.items()} for size in ((1, 64), (32, 128))}
    blocks = script.page(
        tmp_path, times, files, dict.fromkeys(TIMES, 1.0), {"optimum": "2.1.0"}, 872, [0.25, 3.0]
    )
    text = "\n\n".join(blocks)
    assert "3 rounds in turns" in text and "872 texts" in text and "load 0.2–3.0" in text
    assert "## One text of 64 tokens" in text and "## Batches of 32 texts of 128 tokens" in text
    assert "optimum 2.1.0" in text and "onnx-int8 12 s" in text
