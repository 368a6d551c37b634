"""The verb with scripted routes: what is tried, dropped, measured, chosen, kept, resumed and refused."""

import pytest

from lit_compress.auto import search
from lit_compress.benchmark.process import WorkerProcess
from tests.auto.conftest import MEGABYTE, ROUTES, measure_one_by_one, write_data


def flat(capsys):
    """Everything that was printed, without line breaks."""
    return " ".join(capsys.readouterr().out.split())


# -- what is chosen --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quality", "options", "winner"),
    [
        # 35 of 36 texts are 0.972 of the original's accuracy.
        (0.97, {}, "onnx-int8"),
        (0.98, {}, "torch-bf16"),
        (0.98, {"minimise": "memory"}, "onnx-fp32"),
        (0.98, {"minimise": "size"}, "onnx-fp32"),
        (0.97, {"minimise": "size"}, "onnx-int8"),
        (0.97, {"max_memory_mb": 70}, "onnx-fp32"),
        (0.97, {"max_memory_mb": 85}, "torch-bf16"),
        (0.98, {"max_size_mb": 39}, "onnx-fp32"),
        (0.97, {"batch": 4}, "onnx-int8"),
    ],
)
def test_the_right_one_under_each_constraint(scripted, capsys, quality, options, winner):
    scripted.auto(quality, **options)
    out = flat(capsys)
    assert f"{winner} is the" in out
    if winner.startswith("torch"):
        assert scripted.exports == [] and "torch-bf16 runs the model folder as it is" in out
    else:
        format, precision = winner.split("-")
        assert scripted.exports == [(format, precision, str(scripted.out / winner))]


@pytest.mark.parametrize("batch", [1, 32])
def test_latency_limit_counts_milliseconds_of_the_median_text_or_of_a_batch(scripted, capsys, batch):
    def milliseconds(row):
        texts = row["cpu"]["latency_ms"]["p50"]
        return texts if batch == 1 else 32_000 / row["cpu"]["throughput"]["32"]["texts_per_second"]

    scripted.auto(0.98, batch=batch)
    rows = scripted.records("results.jsonl")
    time = {row["runtime"]: milliseconds(row) for row in rows}
    # onnx-int8 is not good enough; eager float32 takes 4, ONNX 3 and bfloat16 2 parts of a time.
    assert time["torch-fp32"] == pytest.approx(4 / 3 * time["onnx-fp32"], rel=1e-3)
    capsys.readouterr()
    for limit, winner in (
        ("torch-fp32", "onnx-fp32"),
        ("onnx-fp32", "onnx-fp32"),
        ("torch-bf16", "torch-bf16"),
    ):
        scripted.auto(0.98, minimise="size", batch=batch, max_latency_ms=1.01 * time[limit])
        out = flat(capsys)
        assert f"{winner} is the smallest" in out
        assert ("in onnx-fp32: out, since it takes" in out) == (limit == "torch-bf16")
    with pytest.raises(
        ValueError, match=r"nearest is torch-bf16: it takes .* ms, .* ms over --max-latency-ms"
    ):
        scripted.auto(0.98, batch=batch, max_latency_ms=0.999 * time["torch-bf16"])


def test_table_has_every_route_with_the_reason_of_those_that_are_out(scripted, capsys):
    scripted.auto(0.98, max_size_mb=39)
    out = flat(capsys)
    assert "out, since it keeps 0.9722 of the original's accuracy, short of --quality 0.98 by 0.0078" in out
    assert "torch-bf16: out, since it takes 40 MB, 1 MB over --max-size-mb 39" in out
    rows = scripted.records("results.jsonl")
    # Only what is left is timed, beside the original; what is too large is not even judged.
    assert [row["runtime"] for row in rows] == ["torch-fp32", "onnx-fp32"]
    judged = {line["route"] for line in scripted.records("quality.jsonl")}
    assert judged == {"torch-fp32", "onnx-fp32", "onnx-int8"}
    assert "torch-bf16 predict" not in scripted.log
    assert rows[1]["ratio"]["quality"] == 1.0
    assert rows[1]["quality"]["split"] == "validation" and rows[1]["seed"] == 3
    # The table's cells: sizes of the dropped ones, the interval of the measured one.
    assert "10.0" in out and "1.29–1.37" in out


def test_quality_is_judged_once_and_not_again_beside_the_clock(scripted):
    scripted.auto(0.97)
    assert [line.split()[0] for line in scripted.log if line.endswith("predict")] == list(ROUTES)


def test_noise_does_not_decide(scripted, capsys):
    scripted.behave(torch_bf16={"seconds": 1.02e-3, "wrong": 4})
    scripted.auto(0.95)
    out = flat(capsys)
    assert "torch-bf16 is the fastest" in out
    assert "No better or worse in latency but for noise: onnx-int8; so quality decided." in out
    scripted.behave(torch_bf16={"seconds": 1.02e-3, "wrong": 5})
    (scripted.out / "quality.jsonl").unlink()
    (scripted.out / "results.jsonl").unlink()
    scripted.auto(0.95)
    assert "onnx-int8 is the fastest" in (out := flat(capsys))
    assert "torch-bf16; so the smaller file decided." in out


def test_original_wins_where_nothing_beats_it(scripted, capsys):
    scripted.behave(**{name.replace("-", "_"): {"seconds": 5e-3} for name in ROUTES[1:]})
    scripted.auto()
    assert "The original, torch-fp32, is the fastest" in (out := flat(capsys))
    assert "Nothing beats the original" in out
    assert scripted.exports == []


@pytest.mark.parametrize(
    ("changes", "options", "nearest"),
    [
        # Too large by a tenth, against a quality that is short by less.
        (
            {},
            {"max_size_mb": 9.5, "quality": 0.98},
            "onnx-int8: it takes 10 MB, 0.5 MB over --max-size-mb 9.5",
        ),
        ({}, {"max_memory_mb": 59.9}, "onnx-fp32: it takes 60 MB, 0.1 MB over --max-memory-mb 59.9."),
        (
            {},
            {"max_memory_mb": 9},
            "onnx-int8: it keeps 0.9722 of the original's accuracy, short of --quality 0.98 by 0.0078; its time and "
            "memory were not measured.",
        ),
        (
            {name.replace("-", "_"): {"bytes": 41 * MEGABYTE} for name in ROUTES if name != "onnx-int8"},
            {"max_size_mb": 20},
            "onnx-int8: it keeps 0.9722 of the original's accuracy, short of --quality 0.98 by 0.0078",
        ),
    ],
)
def test_where_none_qualifies_the_nearest_is_named_and_nothing_exported(scripted, changes, options, nearest):
    scripted.behave(**changes)
    with pytest.raises(ValueError) as refusal:
        scripted.auto(**options)
    text = str(refusal.value)
    assert text.startswith("none of 4 routes fulfils --quality 0.98 --max-")
    assert f"The nearest is {nearest}" in text and text.endswith("Nothing was exported.")
    assert scripted.exports == []


def test_winner_that_the_export_refuses_gives_way_to_the_next(scripted, capsys):
    scripted.unexportable = ("onnx-fp32",)
    scripted.auto(0.98, minimise="memory")
    out = flat(capsys)
    assert "onnx-fp32 could not be exported: it computes something else on real texts" in out
    assert "torch-bf16 is the one that takes least memory of 2 of 4 routes" in out


# -- what goes wrong in a route --------------------------------------------------------------------

PARITY_TEXT = (
    "Expected onnx-fp32 to compute the logits of the original within 0.001 of their size but got 0.3"
)
REFUSAL = "Expected a model without gaps but got a block without attention; use another runtime."
DEATH = "Expected run/model to be prepared for onnx-fp32 but the process ended with status -9"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"build": PARITY_TEXT, "kind": "parity"}, "parity failed: Expected onnx-fp32"),
        ({"build": REFUSAL, "kind": "refused"}, "cannot express this model: Expected a model without gaps"),
        ({"build": DEATH, "kind": "crashed"}, "crashed: Expected run/model"),
        ({"do": "load", "then": "crash"}, "crashed: the worker ended with exit status 1"),
        ({"do": "predict", "then": "crash"}, "the last words of the worker"),
        ({"do": "predict", "then": "hang"}, "no answer to 'predict' within 2 s"),
        ({"do": "time", "then": "crash"}, "the last words of the worker"),
        ({"do": "time", "then": "hang"}, "no answer to 'latency' within 2 s"),
    ],
)
def test_route_that_fails_does_not_stop_the_others(scripted, capsys, change, told):
    scripted.behave(onnx_fp32=change)
    scripted.auto(0.97, timeout=2.0)
    out = flat(capsys)
    assert told in out
    assert "onnx-int8 is the fastest of 3 of 4 routes" in out


def test_lasting_failures_are_remembered_and_crashes_tried_again(scripted):
    for change, builds in (
        ({"build": REFUSAL, "kind": "refused"}, 1),
        ({"build": DEATH, "kind": "crashed"}, 2),
    ):
        scripted.behave(onnx_fp32=change)
        (scripted.run / "log").write_text("")
        scripted.auto(0.97)
        scripted.auto(0.97)
        assert scripted.log.count("onnx-fp32 build") == builds
        (scripted.out / "quality.jsonl").unlink()


def test_original_that_fails_is_told(scripted):
    scripted.behave(torch_fp32={"do": "load", "then": "crash"})
    with pytest.raises(ValueError, match=r"Expected the original .* judged on validation rows.*last words"):
        scripted.auto()


def test_original_that_is_always_wrong_cannot_be_shared_out(scripted):
    scripted.behave(torch_fp32={"wrong": 40})
    with pytest.raises(ValueError, match=r"accuracy on validation is 0, of which a share means nothing"):
        scripted.auto()


# -- routes that are not there ---------------------------------------------------------------------


def test_missing_libraries_are_listed_with_the_line_that_installs_them(scripted, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    scripted.auto()
    out = flat(capsys)
    assert "Not tried: onnx-fp32, onnx-int8. Expected onnxruntime" in out
    assert 'pip install "lit-compress[onnx]"' in out
    assert "torch-bf16 is the fastest of 2 of 2 routes" in out


# -- resuming --------------------------------------------------------------------------------------


def test_what_is_known_is_neither_judged_nor_measured_again(scripted, capsys):
    scripted.auto(0.97)
    before = [scripted.records(name) for name in ("quality.jsonl", "results.jsonl")]
    (scripted.run / "log").write_text("")
    scripted.auto(0.97)
    assert scripted.log == []
    assert [scripted.records(name) for name in ("quality.jsonl", "results.jsonl")] == before
    assert capsys.readouterr().out.count("onnx-int8 is the fastest") == 2
    # Another constraint needs no new figures, and a route that was dropped before shows those that it has.
    scripted.auto(0.98, minimise="memory")
    assert scripted.log == []
    assert "onnx-fp32 is the one that takes least memory" in flat(capsys)


def test_other_conditions_are_measured_anew(scripted, monkeypatch):
    scripted.auto(0.97)
    (scripted.run / "log").write_text("")
    scripted.auto(0.97, rounds=3)
    assert not any(line.endswith(("build predict", "predict")) for line in scripted.log)
    assert len(scripted.records("results.jsonl")) == 8
    versions = dict.fromkeys(("torch", "transformers", "onnx"), "1") | {"onnxruntime": "2"}
    monkeypatch.setattr("lit_compress.auto.routes.library_version", versions.get)
    scripted.auto(0.97, rounds=3)
    assert len(scripted.records("quality.jsonl")) == 8
    assert len(scripted.records("results.jsonl")) == 12


def test_other_labels_are_judged_anew(scripted):
    scripted.auto(0.97)
    rows = scripted.run.parent / "rows.csv"
    rows.write_text(rows.read_text().replace("good film ,1", "good film ,0", 1))
    scripted.auto(0.5)
    assert len(scripted.records("quality.jsonl")) == 8


def test_interrupted_search_says_what_is_kept_and_goes_on(scripted, monkeypatch, capsys):
    real, calls = WorkerProcess.send, []

    def send(self, do, **arguments):
        calls.append(do)
        if calls.count("predict") == 3:
            raise KeyboardInterrupt
        real(self, do, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, "send", send)
        with pytest.raises(SystemExit) as stop:
            scripted.auto(0.97)
    assert stop.value.code == 130
    assert f"2 judgements and 0 rows are in {scripted.out}" in flat(capsys)
    with monkeypatch.context() as patch:
        patch.setattr(search, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(SystemExit):
            scripted.auto(0.97)
    assert "2 judgements and 0 rows" in flat(capsys)
    scripted.auto(0.97)
    assert [line["route"] for line in scripted.records("quality.jsonl")] == list(ROUTES)
    assert "onnx-int8 is the fastest" in flat(capsys)


def test_several_sessions_are_compared_by_the_ratio_to_the_original(scripted, monkeypatch, capsys):
    # One route at a time: every session of the scripted machine has a speed of its own.
    measure_one_by_one(monkeypatch)
    scripted.auto(0.97)
    assert len({row["session"] for row in scripted.records("results.jsonl")}) == 3
    assert "onnx-int8 is the fastest" in flat(capsys)


@pytest.mark.parametrize("name", ["quality.jsonl", "results.jsonl"])
def test_line_that_a_kill_cut_short_is_found_again(scripted, name):
    scripted.auto(0.97)
    path = scripted.out / name
    path.write_text(path.read_text()[:-20])
    for _ in range(2):  # and the line does not lie in the way later
        (scripted.run / "log").write_text("")
        scripted.auto(0.97)
    assert scripted.log == []
    routes = {line["runtime" if name == "results.jsonl" else "route"] for line in scripted.records(name)}
    assert routes == set(ROUTES)


def test_refuses_a_damaged_line_that_is_not_the_last_one(scripted):
    scripted.auto(0.97)
    path = scripted.out / "results.jsonl"
    path.write_text("{\n" + path.read_text())
    with pytest.raises(ValueError, match=r"in line 1 of .*results\.jsonl but got '\{'"):
        scripted.auto(0.97)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task": "text-classificatio"},
            "--task to be one of text-classification, text-regression but .* did you mean text-class",
        ),
        ({"task": "vision"}, "models of other tasks cannot be measured yet"),
        ({"quality": 98}, r"--quality to be the share .* but got 98; percentages"),
        ({"quality": 0}, "--quality to be the share"),
        ({"quality": float("nan")}, "--quality to be the share"),
        ({"minimise": "speed"}, "--minimise to be one of latency, size, memory but got 'speed'"),
        ({"max_size_mb": 0}, "--max-size-mb above 0 but got 0, which no model can fulfil"),
        ({"max_latency_ms": -1}, "--max-latency-ms above 0"),
        ({"max_memory_mb": float("nan")}, "--max-memory-mb above 0"),
        ({"batch": 0}, "--batch of at least 1 text but got 0"),
        ({"threads": 0}, "threads to be at least 1"),
        ({"threads": 4096}, "at most .* threads"),
        ({"split": "test"}, "got --split test; a choice made on the test rows"),
        ({"split": "validatoin"}, "validatoin"),
        ({"runtimes": ["onnx-int9"]}, "a runtime among .* did you mean onnx-int8"),
        ({"data": "missing.yaml"}, "missing.yaml"),
    ],
)
def test_bad_input_is_refused_before_anything_is_built(scripted, options, message):
    with pytest.raises(ValueError, match=message):
        scripted.auto(**options)
    assert scripted.log == [] and not scripted.out.exists()


def test_folder_that_is_not_ours(scripted, tmp_path):
    from lit_compress.auto.command import auto_command

    with pytest.raises(ValueError, match=r"Expected config.json in the model folder"):
        auto_command(str(tmp_path), 0.98)
    with pytest.raises(ValueError, match=r"Expected the model folder"):
        auto_command(str(tmp_path / "missing"), 0.98)


def test_model_that_is_no_text_classifier(scripted):
    from tests.tiny import tiny_model

    tiny_model("vit").save_pretrained(scripted.folder)
    with pytest.raises(ValueError, match=r"Expected a model that classifies texts"):
        scripted.auto()


def test_no_data(scripted):
    (scripted.run / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"labelled texts to judge quality on .* with --data"):
        scripted.auto()


def test_no_label_column(scripted, tmp_path):
    write_data(tmp_path, scripted.run / "config.yaml", label="stars")
    with pytest.raises(ValueError, match=r"label"):
        scripted.auto()
    assert scripted.log == []


def test_model_with_other_classes_than_the_data(scripted):
    from lit_compress.benchmark import quality

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quality.Texts, "batches", lambda *_: (_ for _ in ()).throw(ValueError("3 outputs")))
        with pytest.raises(ValueError, match=r"Expected the original .* 3 outputs"):
            scripted.auto()


# -- the command line ------------------------------------------------------------------------------


def test_exit_status(scripted, capsys):
    from lit_compress.__main__ import main

    line = ["auto", str(scripted.folder), "--runtimes", ",".join(ROUTES), "--rounds", "2", "--quality"]
    assert main([*line, "0.97", "--minimise", "size"]) == 0
    assert "onnx-int8 is the smallest" in flat(capsys)
    assert main([*line, "0.97", "--max-size-mb", "1"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert told.startswith(
        "lit-compress auto: none of 4 routes fulfils --quality 0.97 --max-size-mb 1. The nearest is"
    )
    assert main([*line, "97"]) == 1
    assert "but got 97; percentages are written as fractions" in capsys.readouterr().err
