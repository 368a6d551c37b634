"""Models that give a score: judged by rank correlation, of which a route keeps a share."""

import pytest
import yaml
from scipy.stats import spearmanr

from lit_compress.models.checkpoint import save_folder
from lit_compress.models.loading import quiet
from tests.tiny import tiny_bert

#: Scores of 40 texts: the number of their words, some of them by mistake.
WORDS = [1 + n % 5 for n in range(40)]
TARGETS = [words + (2.5 if n % 7 == 0 else 0.5) for n, words in enumerate(WORDS)]


@pytest.fixture
def scores(scripted):
    """The scripted run with float labels; a route's score of a text is the number of its tokens."""
    lines = [f"{'film ' * words},{target}" for words, target in zip(WORDS, TARGETS, strict=True)]
    (scripted.run.parent / "rows.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    with quiet():
        save_folder(scripted.folder, tiny_bert(layers=2, regression=True), None, {"method": "teacher"})
    scores_everywhere(scripted)
    return scripted


def scores_everywhere(scripted, **wrong):
    """Let all routes give scores, and some the score 0 to the first so many texts."""
    names = ("torch_fp32", "torch_bf16", "onnx_fp32", "onnx_int8")
    scripted.behave(**{name: {"is_score": True, "wrong": wrong.get(name, 0)} for name in names})


def spearman(wrong):
    """Rank correlation where the shortest texts, which are read first, get the score 0."""
    order = sorted(range(40), key=lambda n: WORDS[n])
    scored = [0 if place < wrong else WORDS[n] for place, n in enumerate(order)]
    return float(spearmanr(scored, [TARGETS[n] for n in order]).statistic)


def test_share_of_the_rank_correlation_decides(scores, capsys):
    # The 8 texts of one word and 12 of the longer ones become alike: order is lost.
    scores_everywhere(scores, onnx_int8=20)
    kept = spearman(20) / spearman(0)
    assert 0.5 < kept < 0.98
    scores.auto(0.98)
    out = " ".join(capsys.readouterr().out.split())
    assert f"keeps {kept:.4f} of the original's spearman, short of --quality 0.98" in out
    assert f"spearman {spearman(0):.4f}" in out
    assert "torch-bf16 is the fastest" in out
    scores.auto(kept - 0.001, task="text-regression")
    assert "onnx-int8 is the fastest" in " ".join(capsys.readouterr().out.split())


def test_refuses_the_task_of_other_labels(scores):
    message = "Expected --task text-regression, because the labels of the data are scores, but got --task text-class"
    with pytest.raises(ValueError, match=message):
        scores.auto(task="text-classification")
    assert scores.log == [] and not scores.out.exists()


def test_refuses_classes_as_scores(scripted):
    with pytest.raises(
        ValueError, match="Expected --task text-classification, because .* are classes, but got"
    ):
        scripted.auto(task="text-regression")


def test_refuses_an_original_that_gives_every_text_the_same_score(scores):
    task = {"class_path": "lit_compress.modules.Regression", "init_args": {"monitor": "pearson"}}
    config = yaml.safe_load((scores.run / "config.yaml").read_text())
    config["model"] = {"init_args": {"task": task}}
    (scores.run / "config.yaml").write_text(yaml.safe_dump(config))
    scores_everywhere(scores, torch_fp32=40)
    # A correlation with a constant is no number.
    with pytest.raises(ValueError, match="pearson of [0-9]+ validation rows to be a number but it is nan"):
        scores.auto()
