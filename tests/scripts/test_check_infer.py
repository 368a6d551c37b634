"""What scripts/check_infer.py says of an export, and that it says so when an infer.py is wrong."""

import sys
from pathlib import Path

import pytest

from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert, tiny_tokenizer


@pytest.fixture(scope="module")
def script():
    import check_infer

    return check_infer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("check_infer") / "model"
    save_folder(folder, tiny_bert(layers=1, labels=2), None, {"label_names": ["bad", "good"]})
    tiny_tokenizer(folder)
    return folder


RIGHT = [("good", 0.9), ("bad", 0.6), ("good", 0.7), ("bad", 0.8)]


@pytest.mark.parametrize(
    ("change", "labels", "words"),
    [
        (("good", 0.9), 4, "the same"),
        (("good", 0.9005), 4, "the same"),
        (("good", 0.95), 4, "near"),
        (("good", 0.5), 4, "differs"),
        (("bad", 0.9), 3, "differs"),
    ],
)
def test_verdict(script, change, labels, words):
    found = script.verdict([change, *RIGHT[1:]], RIGHT)
    assert (found["labels"], found["verdict"]) == (labels, words)
    assert found["difference"] == pytest.approx(abs(change[1] - 0.9))


def test_nothing_agrees(script):
    found = script.verdict([(f"not {label}", value) for label, value in RIGHT], RIGHT)
    assert (found["labels"], found["difference"], found["verdict"]) == (0, 1.0, "differs")


def test_answers_of_odd_texts(script):
    texts = list(script.TEXTS.values())
    output = "".join(f"good\t0.7500\t{text}\n" for text in texts)
    assert script.answers_of(output) == [("good", 0.75)] * 4
    with pytest.raises(ValueError, match="one line per text"):
        script.answers_of("".join(f"good\t0.7500\t{text}\n" for text in texts[::-1]))
    with pytest.raises(ValueError, match="one line per text"):
        script.answers_of(output.replace("good\t0.7500\t\n", ""))


def test_needed_is_what_the_readme_says(script, tmp_path):
    (tmp_path / "README.md").write_text(
        '# It\n\n```bash\npip install "a>=1,<2" "b"\npython infer.py "a text"\n```\n'
    )
    assert script.needed(tmp_path) == ["a>=1,<2", "b"]
    (tmp_path / "README.md").write_text("# It\n")
    with pytest.raises(ValueError, match="pip install in .*README.md but there is none"):
        script.needed(tmp_path)


def test_format_without_its_exporter_is_not_tried(script, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    record = script.tried(model, "openvino-fp32", RIGHT)
    assert record["verdict"].startswith("not tried: Expected openvino")
    assert script.tried(model, "tensorrt-fp16", RIGHT) == {"verdict": "not tried: it has no infer.py"}


def test_what_was_tried_is_not_replaced_by_what_was_not(script):
    shared = {"model": "m", "call": "python it", "software": "torch 1"}
    done = {**shared, "format": "litert-fp32", "requirements": ["a"], "megabytes": 12.0, "seconds": 1.5}
    done |= script.verdict(RIGHT, RIGHT)
    missing = {**shared, "format": "litert-fp32", "call": "another", "verdict": "not tried: no litert"}
    for records in ([done, missing], [missing, done]):
        (kept,) = script.latest(records)
        assert kept == done
    row = "| litert-fp32 | `a` | 12 | 1.5 | 4 of 4 | 0.0000 | the same | 1 |"
    assert row in "\n".join(script.page([done]))
    assert "| litert-fp32 | – | – | – | – | – | not tried: no litert | 1 |" in "\n".join(
        script.page([missing])
    )


@pytest.mark.slow
@pytest.mark.parametrize("fault", [None, "labels", "crash"])
def test_a_wrong_infer_is_found(script, model, monkeypatch, fault):
    """The program really runs; the environment is this one, since making one takes the network."""
    real = script.run

    def run(command, folder, environment=None):
        if "export" in command:
            out = real(command, folder, environment)
            path = Path(command[command.index("--out") + 1])
            settings = (path / "export.json").read_text()
            assert '"labels": [\n  "bad",\n  "good"\n ]' in settings
            if fault == "labels":
                settings = (
                    settings.replace('"bad"', '"x"').replace('"good"', '"bad"').replace('"x"', '"good"')
                )
            (path / "export.json").write_text(settings if fault != "crash" else "{")
            return out
        if "venv" in command or "pip" in command:
            return ""
        return real([sys.executable, *command[1:]], folder, environment)

    monkeypatch.setattr(script, "run", run)
    record = script.tried(model, "torchscript-fp32", script.expected(model))
    if fault == "crash":
        assert record["verdict"].startswith("failed: python") and "JSONDecodeError" in record["verdict"]
    else:
        assert (record["labels"], record["verdict"]) == ((4, "the same") if fault is None else (0, "differs"))
        assert record["requirements"][:2] == ["tokenizers", "numpy"]


def test_long_text_is_over_the_limit(script, model, monkeypatch):
    monkeypatch.setitem(script.TEXTS, "long", "short")
    with pytest.raises(SystemExit, match="over the limit of 130 tokens"):
        script.expected(model)


def test_failure_of_a_program_is_its_last_line(script, tmp_path):
    with pytest.raises(RuntimeError, match="ended with status 3: the last words"):
        script.run(
            [sys.executable, "-c", "import sys; print('the last words', file=sys.stderr); sys.exit(3)"],
            tmp_path,
        )
