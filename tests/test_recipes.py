"""Every recipe has a card, parses, and runs; the commands around them do what they say."""

import json

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

import lit_compress
from lit_compress import callbacks, cli, data, models, modules, objectives, pruning
from lit_compress.__main__ import main
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.low_rank import LowRankLinear
from lit_compress.recipes import CARD_KEYS, index_markdown, list_recipes, read_card
from tests.runs import RECIPES, ROOT, arguments, logged
from tests.tiny import tiny_bert

FILES = sorted(path for path in RECIPES.rglob("*.yaml") if path.parent.name != "overlays")
NAMES = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in FILES]
# Those for lit-compress quantize; the others are for lit-compress fit.
QUANTIZE = [name for name in NAMES if "method" in yaml.safe_load((RECIPES / f"{name}.yaml").read_text())]
FIT = [name for name in NAMES if name not in QUANTIZE]
OVERLAYS = sorted((RECIPES / "overlays").glob("*.yaml"))
PUBLIC = {
    name for package in (callbacks, data, models, modules, objectives, pruning) for name in package.__all__
}
# What every recipe needs and no card repeats.
COMMON = {"AdamW", "Files", "Teacher", "TextClassificationDataModule", "WarmupLinear"}


PRUNES = ("Pruning", "L0Pruning", "LotteryTicket")

# What fits the tiny model and the four epochs of the tests.
SMALLER = {
    "combine/distil_prune_qat": ["--trainer.callbacks.target={sparsity: 0.5, speedup: null}"],
    "combine/distil_prune": ["--trainer.callbacks.target={sparsity: 0.5, speedup: null}"],
    "prune/block_movement": ["--trainer.callbacks.block=[4, 4]"],
    "prune/lottery_ticket": ["--trainer.callbacks.rounds=1"],
}


def class_names(node):
    """Every class that a recipe names."""
    if isinstance(node, dict):
        own = {node["class_path"]} if "class_path" in node else set()
        return own.union(*map(class_names, node.values()))
    return set().union(*map(class_names, node)) if isinstance(node, list) else set()


def asked_sparsity(name, recipe):
    """Share of the encoder's weights that a recipe removes, with the settings of the test; ``None`` for none."""
    found = [
        entry["init_args"]
        for entry in recipe["trainer"].get("callbacks", [])
        if entry["class_path"] in PRUNES
    ]
    if not found:
        return None
    if "rate" in found[0]:  # one round
        return found[0]["rate"]
    return 0.5 if "speedup" in str(SMALLER.get(name)) else found[0]["target"]["sparsity"]


def encoder_weights(model):
    """Weights of the matrices inside the blocks that are there and not zero."""
    layers = [
        module
        for path, module in model.named_modules()
        if "encoder.layer" in path and not isinstance(module, LowRankLinear)
    ]
    matrices = [layer.weight for layer in layers if getattr(layer, "weight", None) is not None]
    return sum(int(matrix.count_nonzero()) for matrix in matrices if matrix.dim() == 2)


def test_all_recipes_are_found():
    assert len(FIT) >= 10 and len(QUANTIZE) >= 5
    assert len(OVERLAYS) >= 5
    assert [recipe.name for recipe in list_recipes()] == sorted(NAMES)
    assert len(NAMES) + len(OVERLAYS) == len(list(RECIPES.rglob("*.y*ml")))


@pytest.mark.parametrize("name", NAMES)
def test_card_is_full_and_true(name):
    title, card = read_card(RECIPES / f"{name}.yaml")
    content = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert title
    assert all(card[key] for key in CARD_KEYS)
    assert card["paper"].startswith("none") or "arXiv" in card["paper"]
    assert f"--config recipes/{name}.yaml" in card["command"]
    parts = set(card["parts"].replace(",", " ").split())
    if name in QUANTIZE:
        assert parts == {content["method"]}
        assert card["command"].startswith("lit-compress quantize")
        return
    assert card["command"].startswith("lit-compress fit")
    assert parts <= class_names(content) <= parts | COMMON
    assert class_names(content) <= PUBLIC  # bare names only


@pytest.mark.parametrize("name", QUANTIZE)
def test_quantizes_end_to_end(name, cli_task, tmp_path, capsys):
    assert main(["recipes", "validate", str(RECIPES / f"{name}.yaml")]) == 0
    teacher = save_folder(tmp_path / "teacher", tiny_bert(layers=2, hidden=64, labels=2), None, {})
    source = {"folder": str(cli_task), "train": "train.tsv", "validation": "dev.tsv"}
    init = {"source": {"class_path": "Files", "init_args": source}, "text": ["sentence"]}
    init |= {"tokenizer": str(cli_task / "teacher"), "cache_dir": str(tmp_path / "tokens")}
    data = {"data": {"class_path": "TextClassificationDataModule", "init_args": init}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    words = [str(teacher), "--out", str(tmp_path / "small"), "--data", str(tmp_path / "data.yaml")]
    assert main(["quantize", "--config", str(RECIPES / f"{name}.yaml"), *words]) == 0
    assert "the logits differ by" in " ".join(capsys.readouterr().out.split())
    facts = json.loads((tmp_path / "small" / "lit_compress.json").read_text())["quantization"]
    assert facts["method"] == read_card(RECIPES / f"{name}.yaml")[1]["parts"]
    model, full = lit_compress.load(tmp_path / "small"), lit_compress.load(teacher)
    sizes = [
        sum(path.stat().st_size for path in place.glob("*.safetensors"))
        for place in (tmp_path / "small", teacher)
    ]
    assert sizes[0] < 0.6 * sizes[1]
    ids = torch.randint(5, 90, (4, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = model(ids).logits.float(), full(ids).logits
    assert 0 < (one - other).norm() < 0.5 * other.norm()


@pytest.mark.parametrize("name", FIT)
def test_runs_end_to_end(name, cli_task, tmp_path):
    # Four epochs: in the second TinyBERT changes its stage.
    words = arguments(name, cli_task, tmp_path, "--trainer.max_epochs=4", *SMALLER.get(name, []))
    assert cli.run(["fit", *words]) == 0
    recipe = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    content = recipe["model"]["init_args"]
    values = logged(tmp_path)
    terms = {f"train/{term}" for term in content.get("objectives", {})} | {"train/loss"}
    if "L0Pruning" in class_names(recipe):
        terms.add("train/sparsity_penalty")
    assert terms == {key for key in values if key.startswith("train/")}
    assert all(values[term] for term in terms)
    assert len(values["val/accuracy"]) == 4 / recipe["trainer"].get("val_check_interval", 1)
    manifest = json.loads((tmp_path / "model" / "lit_compress.json").read_text())
    assert (manifest["recipe"], manifest["method"]) == (name, content["method"])
    model = lit_compress.load(tmp_path / "model")
    assert model.num_labels == 2
    teacher = AutoModelForSequenceClassification.from_pretrained(cli_task / "teacher")
    wanted = asked_sparsity(name, recipe)
    if wanted is not None:
        found = 1 - encoder_weights(model) / encoder_weights(teacher)
        # More where blocks leave a row empty, or rounding makes a zero; to within a head of the tiny model.
        assert wanted - 0.01 < found < wanted + 0.02
        assert manifest["pruning"]["encoder_sparsity"] == pytest.approx(found, abs=1e-9)
    depth = content["student"]["init_args"].get("depth", 6)
    assert (model.config.num_hidden_layers, teacher.config.num_hidden_layers) == (depth, 6)
    assert any(
        not torch.equal(model.state_dict()[k], v)
        for k, v in teacher.state_dict().items()
        if k in model.state_dict()
    )


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_parse_on_top_of_a_recipe(overlay, capsys):
    files = [str(RECIPES / "distil" / "soft_targets.yaml"), str(overlay)]
    assert main(["recipes", "validate", "--merge", *files]) == 0
    assert "valid" in capsys.readouterr().out
    first, second, *_ = overlay.read_text().splitlines()
    assert first.startswith("# Overlay: ") and second == "#"
    assert f"--config recipes/overlays/{overlay.name}" in overlay.read_text()


def test_index_is_up_to_date():
    assert (RECIPES / "README.md").read_text() == index_markdown()


def test_index_tells_how_objectives_merge(cli_task, tmp_path, capsys):
    assert "`objectives` of a later file replace all earlier ones" in index_markdown()
    other = tmp_path / "other.yaml"
    other.write_text(
        "model: {init_args: {objectives: {soft: {class_path: SoftTargets, init_args: {weight: 1.0}}}}}"
    )
    words = arguments("distil/pkd_skip", cli_task, tmp_path, f"--config={other}", "--print_config")
    with pytest.raises(SystemExit, match="0"):
        cli.run(["fit", *words])
    merged = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert list(merged["objectives"]) == ["soft"]
    assert merged["method"] == "PKD-skip"  # other mappings merge


def test_ls_names_every_recipe(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["recipes", "ls"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)


def test_copies_a_recipe(tmp_path, capsys):
    assert main(["recipes", "cp", "distil/pkd_skip", str(tmp_path / "new" / "mine.yaml")]) == 0
    original = RECIPES / "distil" / "pkd_skip.yaml"
    assert (tmp_path / "new" / "mine.yaml").read_bytes() == original.read_bytes()
    assert main(["recipes", "cp", "distil/pkd_skip", str(tmp_path)]) == 0
    assert (tmp_path / "pkd_skip.yaml").read_bytes() == original.read_bytes()
    assert main(["recipes", "validate", str(tmp_path / "pkd_skip.yaml")]) == 0


def test_refuses_to_overwrite_a_file_with_a_recipe(tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    target.write_text("precious")
    assert main(["recipes", "cp", "distil/pkd_skip", str(target)]) == 1
    assert f"Expected a new file but {target} exists" in capsys.readouterr().err
    assert target.read_text() == "precious"


def test_refuses_an_unknown_recipe(tmp_path, capsys):
    assert main(["recipes", "cp", "distil/pkd_skp", str(tmp_path / "x.yaml")]) == 1
    error = capsys.readouterr().err
    assert "'distil/pkd_skp'" in error
    assert "Did you mean 'distil/pkd_skip'?" in error


def test_refuses_an_invalid_recipe(tmp_path, capsys):
    wrong = tmp_path / "wrong.yaml"
    text = (RECIPES / "distil" / "pkd_skip.yaml").read_text()
    wrong.write_text(text.replace("layer_map: skip", "layermap: skip"))
    with pytest.raises(SystemExit, match="2"):
        main(["recipes", "validate", str(wrong)])
    assert "Did you mean 'layer_map' instead of 'layermap'?" in capsys.readouterr().err


def test_refuses_a_card_without_an_entry(tmp_path):
    text = (RECIPES / "distil" / "pkd_skip.yaml").read_text()
    (tmp_path / "x.yaml").write_text(text.replace("# deviations:", "# differences:"))
    with pytest.raises(ValueError, match="deviations is missing"):
        read_card(tmp_path / "x.yaml")
    (tmp_path / "y.yaml").write_text("model: {}\n")
    with pytest.raises(ValueError, match="to open with a card"):
        read_card(tmp_path / "y.yaml")


def test_installed_packages_carry_the_recipes():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'recipes = "lit_compress/_recipes"' in text
