import json

import pytest

from lit_compress.benchmark.command import benchmark_folder
from lit_compress.benchmark.results import read_results
from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert


@pytest.fixture
def model_folder(tmp_path):
    def make(name, seconds, **facts):
        folder = save_folder(tmp_path / name / "model", tiny_bert(layers=2), None, facts)
        (folder / "behaviour.json").write_text(json.dumps({"name": name, "seconds": seconds}))
        return str(folder)

    return make


def test_folder_is_measured_beside_its_baseline_over_its_own_lengths(
    fake_workers, model_folder, tmp_path, capsys
):
    facts = {"method": "soft targets", "input_lengths": [5, 9, 12], "recipe": "distil/x"}
    student = model_folder("student", 1e-3, **facts)
    teacher = model_folder("teacher", 3e-3, method="fine-tuning")
    out = tmp_path / "results.jsonl"
    benchmark_folder(student, against=teacher, out=str(out), rounds=3)
    first, second = read_results(out)
    assert (first["model"], first["method"], first["role"]) == ("teacher", "fine-tuning", "teacher")
    assert (second["model"], second["method"], second["recipe"]) == ("student", "soft targets", "distil/x")
    assert set(second["protocol"]["lengths"]) == {5, 9, 12}
    assert second["ratio"]["cpu_latency"]["median"] == pytest.approx(1 / 3, rel=1e-3)
    assert "soft targets" in capsys.readouterr().out


def test_model_against_itself_keeps_two_names(fake_workers, model_folder, tmp_path):
    student = model_folder("student", 1e-3, input_lengths=[4])
    out = tmp_path / "results.jsonl"
    benchmark_folder(student, against=student, out=str(out), rounds=3)
    assert [row["model"] for row in read_results(out)] == ["student (baseline)", "student"]


def test_refuses_a_folder_without_text_lengths(model_folder):
    with pytest.raises(ValueError, match="Expected input_lengths, token counts of real texts"):
        benchmark_folder(model_folder("stock", 1e-3))


def test_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="Expected the model folder"):
        benchmark_folder(str(tmp_path / "nothing"))
