"""The tables of the flagship and of the ablation say what lies in the run folders."""

import importlib
import json

import pytest


def row(model, runtime, quality, latency, ratio, role="student", run="run", kept=0.98):
    latencies = None if ratio is None else {"median": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio}
    ratios = {} if ratio is None else {"cpu_latency": latencies, "quality": kept}
    return {
        **{"model": model, "runtime": runtime, "role": role, "is_baseline": ratio is None, "run": run},
        "quality": {"value": quality, "metric": "accuracy"},
        "cpu": {"latency_ms": {"p50": latency}},
        **{"ratio": ratios, "bytes": 4_000_000},
    }


@pytest.fixture
def script():
    """Import a script by its name; conftest.py has put their folder on the path."""
    return importlib.import_module


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "main-seed0"
    place.mkdir()
    outcome = {"runtime": "onnx-int8", "quality_kept": 0.98, "speedup": 20.0, "same_runtime": [5.0, 4.0, 6.0]}
    (place / "outcome.json").write_text(json.dumps({**outcome, "bytes": 5_000_000}))
    (place / "plan.json").write_text(json.dumps({"request": {"words": ["--trainer.max_epochs=4"]}}))
    rows = [
        row("teacher", "torch-fp32", 0.90, 10.0, None, "teacher"),
        row("student", "onnx-int8", 0.882, 0.5, 0.05),
    ]
    (place / "results.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tests = [
        row("teacher", "torch-fp32", 0.80, 10.0, None, "teacher"),
        row("student", "onnx-int8", 0.72, 0.5, 0.05),
    ]
    (place / "test.jsonl").write_text("\n".join(map(json.dumps, tests)))
    return tmp_path


def test_every_figure_is_held_against_its_wish(folder, script):
    make_flagship_table = script("make_flagship_table")
    found = make_flagship_table.collect(folder)
    page = make_flagship_table.page(found, make_flagship_table.table(found, 90_000_000), 90_000_000, "Title")
    line = next(line for line in page.splitlines() if line.startswith("| main-seed0"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == "98.0 % ✓ (≥ 97.5 %)"
    assert cells[2] == "90.0 % (72.0 of 80.0)"
    assert cells[3] == "20.0× (18.2–22.2) ✓ (≥ 20×)"
    assert cells[4] == "5.0× (4.0–6.0) ✗ (≥ 6×)"
    assert cells[5] == "5.00 MB ✓ (≤ 5.62)"
    assert cells[8] == "after its fit"
    assert "each model when its fit had ended" in page
    assert "Added to the recipe: main-seed0: `--trainer.max_epochs=4`." in page


def test_a_session_of_all_models_tells_speeds_better(folder, script):
    made = script("make_flagship_table")
    found = made.collect(folder)
    student = str(folder / "main-seed0" / "student")
    session = [
        row("teacher", "torch-fp32", 0.90, 10.0, None, "teacher"),
        row("teacher", "onnx-int8", 0.90, 2.0, 0.2, "teacher", kept=1.0),
        row("another", "onnx-int8", 0.10, 9.0, 0.9, run="another", kept=0.1),
        row("student", "onnx-int8", 0.873, 0.4, 0.04, run=student, kept=0.97),
    ]
    own = {"session": "b", "environment": {"load_before": 1.06}}
    # The teacher of its own group goes first.
    other = row("teacher", "onnx-int8", 0.90, 5.0, 0.5, "teacher", kept=1.0) | own | {"session": "a"}
    made.put_together(found, [other, *(one | own | {"bytes": 3_000_000} for one in session)])
    page = made.page(found, made.table(found, 90_000_000), 90_000_000, "Title")
    line = next(line for line in page.splitlines() if line.startswith("| main-seed0"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[1] == "97.0 % ✗ (≥ 97.5 %)"
    assert cells[3] == "25.0× (22.7–27.8) ✓ (≥ 20×)"
    assert cells[4] == "5.0× (4.1–6.1) ✗ (≥ 6×)"
    assert cells[5] == "4.00 MB ✓ (≤ 5.62)"
    assert cells[6:] == ["0.40 ms", "onnx-int8", "together"]
    assert "all models by one `lit-compress benchmark`, the machine's load 1.1;" in page


def test_the_teacher_in_the_runtime_may_be_of_another_group_of_the_benchmark(folder, script):
    made = script("make_flagship_table")
    found = made.collect(folder)
    student = str(folder / "main-seed0" / "student")
    session = [
        row("teacher", "onnx-int8", 0.90, 2.0, 0.2, "teacher", kept=1.0) | {"session": "a"},
        row("student", "onnx-int8", 0.873, 0.4, 0.04, run=student, kept=0.97) | {"session": "b"},
    ]
    made.put_together(found, session)
    assert found["main-seed0"]["same_runtime"][0] == pytest.approx(5.0)
    points = {name: figures for name, *figures in made.points(found, made.table(found, 90_000_000), session)}
    assert points["teacher, onnx-int8"] == [pytest.approx(5.0), pytest.approx(100.0)]


def test_rows_whose_folders_are_gone_stay_in_the_table_and_in_the_picture(folder, script):
    made = script("make_flagship_table")
    found = made.collect(folder)
    first = made.table(found, 90_000_000)
    earlier = (
        first.replace("main-seed0", "main-seed1")
        .replace("98.0 % ✓", "99.5 % ✓")
        .replace("20.0× (", "30.0× (")
    )
    both = made.table(found, 90_000_000, f"# Title\n\n{earlier}\n\nText.")
    assert both.splitlines()[:2] == first.splitlines()[:2]
    assert set(both.splitlines()[2:]) == {first.splitlines()[2], earlier.splitlines()[2]}
    points = {name: figures for name, *figures in made.points(found, both, [])}
    assert points["main-seed0, 5.00 MB"] == [20.0, 98.0]
    assert points["main-seed1, 5.00 MB"] == [30.0, 99.5]
    assert points["teacher, torch-fp32"] == [1.0, 100.0]


def test_refuses_a_folder_without_runs(tmp_path, script):
    with pytest.raises(SystemExit, match=r"run scripts/run_flagship.py first"):
        script("make_flagship_table").collect(tmp_path)


def test_cells_of_the_ablation_have_their_rows(tmp_path, script):
    cells = {
        "teacher": {"dev": 0.9, "test": 0.91, "folder": tmp_path / "teacher" / "model"},
        "prune_qat": {"dev": 0.85, "test": 0.86, "folder": tmp_path / "prune_qat-seed0" / "model"},
    }
    rows = {
        ("teacher", "torch-fp32"): row("teacher", "torch-fp32", 0.9, 10.0, None),
        ("prune_qat-seed0", "onnx-int8"): row("prune_qat-seed0", "onnx-int8", 0.849, 1.0, 0.1),
    }
    table = script("make_ablation_table").table(cells, rows).splitlines()
    assert table[2] == "| the teacher | 90.0 | 91.0 | 1× | – | – | – |"
    assert table[3] == "| pruning + rounding | 85.0 | 86.0 | – | 10.00× (9.09–11.11) | 84.9 | 4.0 MB |"


def test_seeds_of_wishes_and_cells(script):
    run_flagship, run_ablation = script("run_flagship"), script("run_ablation")
    assert run_flagship.parse("main:0,2") == [("main", 0), ("main", 2)]
    assert [seed for _, seed in run_flagship.parse("main")] == [0, 1, 2]
    assert run_ablation.parse("prune_qat:1") == ("prune_qat", 1)
    assert set(script("make_ablation_table").LABELS) == {"teacher", *run_ablation.CELLS}
