"""The benchmark verb, with fake workers: candidates, data, rows, resuming, interruptions, refusals."""

import json
from pathlib import Path

import pytest
import yaml

from lit_compress.__main__ import main
from lit_compress.benchmark import command
from lit_compress.benchmark.command import benchmark_folders
from lit_compress.benchmark.results import read_results
from lit_compress.models.checkpoint import save_folder
from tests.report.rows import make_row
from tests.tiny import tiny_bert, tiny_tokenizer

pytestmark = pytest.mark.usefixtures("fake_workers")
QUICK = {"rounds": 1}


@pytest.fixture
def model_folder(tmp_path):
    def make(name, seconds=1e-3, seed=0, **facts):
        facts = {"method": "soft targets", "input_lengths": [5, 9, 12], "recipe": "distil/x", **facts}
        folder = save_folder(tmp_path / name / "model", tiny_bert(layers=2, labels=2, seed=seed), None, facts)
        (folder / "behaviour.json").write_text(json.dumps({"name": name, "seconds": seconds}))
        return str(folder)

    return make


@pytest.fixture
def pair(model_folder):
    """A student and a teacher that takes three times as long."""
    return model_folder("student"), model_folder("teacher", 3e-3, seed=1, method="fine-tuning")


@pytest.fixture
def data_config(tmp_path):
    """Return a function that writes a configuration with data of two classes."""
    tiny_tokenizer(tmp_path / "tokenizer")
    rows = "\n".join(f"{'good film ' * (1 + n % 3)},{'ab'[n % 4 == 0]}" for n in range(12))
    (tmp_path / "dev.csv").write_text(f"text,label\n{rows}\n")

    def write(path, rows=12, **more):
        source = {"class_path": "Files", "init_args": {"folder": str(tmp_path), "train": "dev.csv"}}
        source["init_args"]["validation"] = "dev.csv"
        init = {
            "source": source,
            "tokenizer": str(tmp_path / "tokenizer"),
            "cache_dir": str(tmp_path / "cache"),
        }
        data = {"class_path": "TextClassificationDataModule", "init_args": init}
        path.write_text(yaml.safe_dump({"data": data, **more}))
        return str(path)

    return write


def by_model(rows):
    return {(row["model"], row["runtime"]): row for row in rows if not row["is_baseline"]}


def test_folder_is_measured_beside_its_baseline_over_its_own_lengths(pair, tmp_path, capsys):
    out = tmp_path / "results.jsonl"
    benchmark_folders([pair[0]], against=pair[1], out=str(out), **QUICK)
    first, second = read_results(out)
    assert (first["model"], first["method"], first["is_baseline"]) == ("teacher", "fine-tuning", True)
    assert (second["model"], second["method"], second["recipe"]) == ("student", "soft targets", "distil/x")
    assert set(second["protocol"]["lengths"]) == {5, 9, 12} and second["protocol"]["data"] is None
    assert second["ratio"]["cpu_latency"]["median"] == pytest.approx(1 / 3, rel=1e-3)
    assert second["quality"] is None
    assert "soft targets" in capsys.readouterr().out


def test_every_model_in_every_runtime_and_thread_count(pair, model_folder, tmp_path):
    out = tmp_path / "results.jsonl"
    other = model_folder("other", seed=2)
    runtimes = ["torch-fp32", "torch-bf16"]
    benchmark_folders([pair[0], other], pair[1], runtimes, threads=[1, 2], out=str(out), **QUICK)
    rows = read_results(out)
    expected = {(name, way) for name in ("student", "other") for way in runtimes} | {
        ("teacher", "torch-bf16")
    }
    for threads in (1, 2):
        mine = [row for row in rows if row["protocol"]["threads"] == threads]
        assert by_model(mine).keys() == expected
        # Five candidates are two sessions, and the baseline is measured in each.
        assert len({row["session"] for row in mine}) == sum(row["is_baseline"] for row in mine) == 2
    found = by_model(rows)
    assert found["teacher", "torch-bf16"]["role"] == "teacher"
    assert found["teacher", "torch-bf16"]["ratio"]["cpu_latency"]["median"] == pytest.approx(0.5)
    assert {row["runtime"] for row in rows if row["is_baseline"]} == {"torch-fp32"}


def test_data_of_the_run_give_lengths_and_quality(pair, tmp_path, data_config):
    data_config(tmp_path / "student" / "config.yaml", seed_everything=7)
    out = tmp_path / "results.jsonl"
    benchmark_folders([pair[0]], pair[1], out=str(out), **QUICK)
    teacher, student = read_results(out)
    # [CLS], two words per repetition, [SEP].
    assert set(student["protocol"]["lengths"]) == {4, 6, 8}
    assert student["protocol"]["data"].startswith("validation ")
    # Fake workers predict class 0, which nine of the twelve rows have.
    assert student["quality"] == {
        "metric": "accuracy",
        "split": "validation",
        "value": 0.75,
        "n": 12,
        "higher_is_better": True,
    }
    assert student["ratio"]["quality"] == 1.0
    assert (student["seed"], student["run"]) == (7, str(tmp_path / "student"))
    assert teacher["quality"]["value"] == 0.75


def test_baseline_of_several_sessions_is_judged_once(pair, model_folder, tmp_path, data_config):
    log = tmp_path / "log"
    behaviour = {"name": "teacher", "seconds": 3e-3, "log": str(log)}
    (tmp_path / "teacher" / "model" / "behaviour.json").write_text(json.dumps(behaviour))
    folders, out = [model_folder(f"m{n}", seed=n + 5) for n in range(5)], tmp_path / "results.jsonl"
    benchmark_folders(folders, pair[1], data=data_config(tmp_path / "d.yaml"), out=str(out), **QUICK)
    assert log.read_text().count("predict") == 1
    rows = [row for row in read_results(out) if row["is_baseline"]]
    assert [row["quality"]["value"] for row in rows] == [0.75, 0.75]


def test_task_of_the_configuration_judges(pair, tmp_path, data_config):
    task = {"class_path": "Classification", "init_args": {"monitor": "f1"}}
    config = data_config(
        tmp_path / "data.yaml", model={"class_path": "FineTuning", "init_args": {"task": task}}
    )
    out = tmp_path / "results.jsonl"
    benchmark_folders([pair[0]], None, data=config, split="train", out=str(out), **QUICK)
    (row,) = read_results(out)
    assert (row["quality"]["metric"], row["quality"]["split"]) == ("f1", "train")
    # Nothing is ever predicted to be class 1.
    assert row["quality"]["value"] == 0.0
    assert row["ratio"] == {} and not row["is_baseline"]


def test_model_against_itself_keeps_two_names(pair, tmp_path):
    out = tmp_path / "results.jsonl"
    benchmark_folders([pair[0]], pair[0], out=str(out), **QUICK)
    assert [row["model"] for row in read_results(out)] == ["student (baseline)", "student"]


def test_models_of_the_same_name_are_told_apart(model_folder, tmp_path):
    folders = [model_folder("a/run"), model_folder("b/run", seed=1)]
    out = tmp_path / "results.jsonl"
    benchmark_folders(folders, out=str(out), **QUICK)
    assert [row["model"] for row in read_results(out)] == ["a/run", "b/run"]


# -- resuming --------------------------------------------------------------------------------------


def test_what_is_there_is_not_measured_again(pair, model_folder, tmp_path, capsys):
    out = tmp_path / "results.jsonl"
    benchmark_folders([pair[0]], pair[1], out=str(out), **QUICK)
    before = out.read_text()
    benchmark_folders([pair[0]], pair[1], out=str(out), **QUICK)
    assert out.read_text() == before
    # The table is printed all the same.
    assert capsys.readouterr().out.count("soft targets") == 2
    benchmark_folders([pair[0], model_folder("new", seed=5)], pair[1], out=str(out), **QUICK)
    assert [row["model"] for row in read_results(out)] == ["teacher", "student", "teacher", "new"]
    benchmark_folders([pair[0]], pair[1], out=str(out), rounds=2)
    assert [row["model"] for row in read_results(out)][-1] == "student"


def test_interrupted_benchmark_goes_on(pair, model_folder, tmp_path, monkeypatch, capsys):
    folders = [pair[0], *(model_folder(f"m{n}", seed=n + 5) for n in range(5))]
    out, real, calls = tmp_path / "results.jsonl", command.measure, []

    def measure(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(command, "measure", measure)
    with pytest.raises(SystemExit) as stop:
        benchmark_folders(folders, pair[1], out=str(out), **QUICK)
    assert stop.value.code == 130
    assert "4 rows are in" in capsys.readouterr().out
    first = read_results(out)
    assert len(first) == 4
    benchmark_folders(folders, pair[1], out=str(out), **QUICK)
    rows = read_results(out)
    assert rows[:4] == first
    names = [row["model"] for row in rows if not row["is_baseline"]]
    assert sorted(names) == ["m0", "m1", "m2", "m3", "m4", "student"]


def test_model_that_failed_is_tried_again(pair, tmp_path):
    folder, out = tmp_path / "student" / "model", tmp_path / "results.jsonl"
    good = (folder / "behaviour.json").read_text()
    (folder / "behaviour.json").write_text(json.dumps({"name": "student", "do": "load", "then": "crash"}))
    benchmark_folders([str(folder)], pair[1], out=str(out), **QUICK)
    (folder / "behaviour.json").write_text(good)
    benchmark_folders([str(folder)], pair[1], out=str(out), **QUICK)
    errors = [row.get("error") for row in read_results(out) if row["model"] == "student"]
    assert "exit status 1" in errors[0] and errors[1] is None


# -- the command line ------------------------------------------------------------------------------


def test_command_line_hands_its_options_on(pair, tmp_path, data_config):
    out = tmp_path / "out" / "results.jsonl"
    words = ["--against", pair[1], "--runtimes", "torch-fp32, torch-bf16", "--threads", "1", "--rounds", "1"]
    words += ["--data", data_config(tmp_path / "data.yaml"), "--split", "train", "--max-seconds", "3"]
    words += ["--fixed-batches", "2", "4", "--memory-limit-mb", "2000", "--out", str(out)]
    assert main(["benchmark", pair[0], *words]) == 0
    found = by_model(read_results(out))
    assert found.keys() == {("student", "torch-fp32"), ("student", "torch-bf16"), ("teacher", "torch-bf16")}
    row = found["student", "torch-bf16"]
    assert row["protocol"]["max_seconds"] == 3.0 and row["protocol"]["fixed_batches"] == [2, 4]
    assert row["cpu"]["fixed"]["32"]["throughput"].keys() == {"2", "4"}
    assert row["quality"]["split"] == "train"


def test_defaults_are_those_of_the_protocol(pair, tmp_path):
    out = tmp_path / "results.jsonl"
    assert main(["benchmark", pair[0], "--out", str(out)]) == 0
    protocol = read_results(out)[0]["protocol"]
    assert (protocol["threads"], protocol["rounds"], protocol["max_seconds"]) == (1, 10, 20.0)


# -- refusals --------------------------------------------------------------------------------------


def test_refuses_a_folder_without_text_lengths(model_folder):
    with pytest.raises(ValueError, match="Expected input_lengths, token counts of real texts.*--data"):
        benchmark_folders([model_folder("stock", input_lengths=None)])


def test_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="Expected the model folder"):
        benchmark_folders([str(tmp_path / "nothing")])


def test_refuses_an_unknown_runtime(pair, capsys):
    assert main(["benchmark", pair[0], "--runtimes", "onnx-int9"]) == 1
    assert "but got 'onnx-int9'; did you mean onnx-int8" in capsys.readouterr().err


def test_refuses_a_runtime_whose_library_is_missing(pair, monkeypatch, capsys):
    def check(self):
        raise ImportError('Expected onnxruntime but it is not installed; pip install "lit-compress[onnx]".')

    monkeypatch.setattr("lit_compress.benchmark.runtimes.torch_eager.TorchBf16.check", check)
    assert main(["benchmark", pair[0], "--runtimes", "torch-bf16"]) == 1
    assert 'pip install "lit-compress[onnx]"' in capsys.readouterr().err


def test_refuses_results_of_another_schema_and_leaves_them_alone(pair, tmp_path):
    out = tmp_path / "results.jsonl"
    out.write_text(json.dumps(make_row(schema=1)) + "\n")
    before = out.read_text()
    with pytest.raises(ValueError, match="got schema 1, measured by an older release; move the file away"):
        benchmark_folders([pair[0]], out=str(out))
    assert out.read_text() == before


def test_refuses_a_configuration_without_data(pair, tmp_path):
    (tmp_path / "config.yaml").write_text("trainer: {max_epochs: 3}\n")
    with pytest.raises(ValueError, match=r"Expected a data section in .*config\.yaml but got only trainer"):
        benchmark_folders([pair[0]], data=str(tmp_path / "config.yaml"))


def test_refuses_a_data_section_that_does_not_parse(pair, tmp_path, data_config):
    path = tmp_path / "data.yaml"
    config = yaml.safe_load(Path(data_config(path)).read_text())
    config["data"]["init_args"]["batch_sise"] = 4
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(
        ValueError, match=r"data section that can be built in .*data\.yaml but got: .*batch_sise"
    ):
        benchmark_folders([pair[0]], data=str(path))


def test_refuses_data_without_rows(pair, tmp_path, data_config):
    config = data_config(tmp_path / "data.yaml")
    (tmp_path / "dev.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match="Expected .*row"):
        benchmark_folders([pair[0]], data=config)


def test_refuses_a_split_that_is_missing(pair, tmp_path, data_config):
    with pytest.raises(ValueError, match="Expected a test split"):
        benchmark_folders([pair[0]], data=data_config(tmp_path / "data.yaml"), split="test")


def test_refuses_a_data_file_that_is_not_there(pair):
    with pytest.raises(ValueError, match="nothing.yaml but there is none"):
        benchmark_folders([pair[0]], data="nothing.yaml")


def test_refuses_runs_of_different_data(pair, model_folder, tmp_path, data_config):
    other = model_folder("other", seed=3)
    data_config(tmp_path / "student" / "config.yaml")
    path = tmp_path / "other" / "config.yaml"
    config = yaml.safe_load(Path(data_config(path)).read_text())
    config["data"]["init_args"]["source"]["init_args"]["validation"] = "other.csv"
    (tmp_path / "other.csv").write_text("text,label\ngood,a\nbad plot,b\n")
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match="describe different validation rows; measure them one by one"):
        benchmark_folders([pair[0], other])


def test_refuses_a_model_with_another_tokenizer(model_folder, tmp_path, data_config):
    folder = model_folder("student")
    tiny_tokenizer(tmp_path / "student" / "model", words=("other", "words"))
    with pytest.raises(ValueError, match="to have the tokenizer of the data but it has another one"):
        benchmark_folders([folder], data=data_config(tmp_path / "data.yaml"))
