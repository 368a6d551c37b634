"""Teachers of the other tasks: data files that fit the recipes, and a tokenizer for Russian."""

import argparse
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from lit_compress.__main__ import main
from lit_compress.benchmark.run_config import read_config, texts_of
from tests.runs import RECIPES, ROOT
from tests.tiny import tiny_tokenizer

TASKS = ROOT / "scripts" / "tasks"
NAMES = sorted(path.stem for path in TASKS.glob("*.yaml"))


@pytest.fixture
def teachers():
    import make_task_teachers

    return make_task_teachers


def test_every_task_has_a_data_file(teachers):
    assert sorted(teachers.WORDS) == NAMES and len(NAMES) == 3


@pytest.mark.parametrize("recipe", ["distil/teacher", "combine/distil_prune_qat"])
@pytest.mark.parametrize("name", NAMES)
def test_data_files_parse_on_top_of_recipes(name, recipe):
    assert (
        main(["recipes", "validate", "--merge", str(RECIPES / f"{recipe}.yaml"), str(TASKS / f"{name}.yaml")])
        == 0
    )


@pytest.mark.parametrize(
    ("name", "labels", "rows"),
    [
        ("mrpc", 2, {"train": 3668, "validation": 408, "test": 1725}),
        ("stsb_en", 1, {"train": 5749, "validation": 1500, "test": 1379}),
        ("rusentitweet", 5, {"train": 10713 - 1071, "validation": 1071, "test": 2679}),
    ],
)
def test_data_files_read_the_real_data(name, labels, rows, shared_data, tmp_path):
    config = read_config(TASKS / f"{name}.yaml")
    init = config["data"]["init_args"]
    init["source"]["init_args"]["folder"] = str(shared_data(name))
    init |= {"tokenizer": str(tiny_tokenizer(tmp_path / "tokenizer")), "cache_dir": str(tmp_path / "cache")}
    texts = texts_of(config, TASKS / f"{name}.yaml", "validation")
    data = texts.datamodule
    assert data.num_labels == labels and texts.task.is_regression == (labels == 1)
    assert {split: len(data.rows(split)) for split in rows} == rows


def test_russian_tokenizer_keeps_letters_and_makes_links_and_names_alike(teachers, tmp_path):
    texts = [f"Мой ёж {n} видел https://t.co/{n} и @user_{n}" for n in range(50)]
    teachers.train_tokenizer(texts, tmp_path, pieces=90)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    one, other = (
        tokenizer(f"МОЙ ёж https://t.co/{a} @{b}")["input_ids"] for a, b in (("xY", "c"), ("1", "d_2"))
    )
    assert one == other
    # й and ё are neither unknown nor и and е.
    assert tokenizer.decode(one, skip_special_tokens=True) == "мой ёж http @"
    assert len(tokenizer) == 90 and tokenizer.pad_token_id == 0 and tokenizer.mask_token == "[MASK]"
    pair = tokenizer("мой", "ёж")
    assert pair["token_type_ids"][0] == 0 and pair["token_type_ids"][-1] == 1


def test_refuses_too_few_texts_for_the_vocabulary(teachers, tmp_path):
    with pytest.raises(ValueError, match="Expected texts with 8000 pieces but got"):
        teachers.train_tokenizer(["мало"], tmp_path)


def test_every_teacher_is_one_fit_with_its_data_and_what_is_given_behind(teachers, monkeypatch, tmp_path):
    fits = {}
    monkeypatch.setattr(teachers, "fit_and_test", lambda folder, words: fits.update({folder: words}) or True)
    data = tmp_path / "data"
    (data / "rusentitweet").mkdir(parents=True)
    (data / "rusentitweet" / "train.jsonl").write_text(
        '{"text": "\\u2028мама мыла раму", "label": "neutral"}\n'
    )
    monkeypatch.setattr(teachers, "train_tokenizer", lambda texts, folder: fits.update(texts=list(texts)))
    args = argparse.Namespace(
        data_root=str(data), runs=str(tmp_path), bf16=False, extra=["--trainer.max_epochs=1"]
    )
    assert all(teachers.make(task, args) for task in teachers.WORDS)
    assert fits.pop("texts") == ["\u2028мама мыла раму"]
    assert list(fits) == [tmp_path / task / "teacher" for task in teachers.WORDS]
    for folder, words in fits.items():
        assert f"--data.source.folder={data / folder.parent.name}" in words
        assert words[-1] == "--trainer.max_epochs=1"
    regressions = [folder.parent.name for folder, words in fits.items() if "--model.task=Regression" in words]
    assert regressions == ["stsb_en"]
    own = fits[tmp_path / "rusentitweet" / "teacher"]
    student = yaml.safe_load(
        next(word for word in own if word.startswith("--model.student=")).partition("=")[2]
    )
    assert student["class_path"] == "FromConfig"
    assert f"--data.tokenizer={tmp_path / 'rusentitweet' / 'tokenizer'}" in own


def test_refuses_an_unknown_task(teachers, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["make_task_teachers.py", "--data-root", ".", "--only", "mrpc,cola"])
    with pytest.raises(SystemExit, match="2"):
        teachers.main()
    assert "Expected --only among mrpc, stsb_en, rusentitweet but got cola" in capsys.readouterr().err


def test_paths_of_the_script_are_there(teachers):
    words = teachers.command("mrpc", Path("data"), Path("runs"), True, [])
    configs = [Path(word.partition("=")[2]) for word in words if word.startswith("--config=")]
    assert len(configs) == 3 and all(path.is_file() for path in configs)
