import shutil

import pytest

from lit_compress.benchmark.folders import (
    display_name,
    local_folder,
    recorded_method,
    weight_bytes,
    weight_fingerprint,
)
from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert


@pytest.fixture
def run(tmp_path):
    save_folder(tmp_path / "teacher" / "model", tiny_bert(layers=2), None, {"method": "fine-tuning"})
    return tmp_path


def test_weights_are_weighed_without_what_lies_beside_them(run):
    folder = run / "teacher" / "model"
    (folder / "optimizer.pt").write_bytes(b"0" * 999)
    assert weight_bytes(folder) == (folder / "model.safetensors").stat().st_size


def test_fingerprint_follows_the_weights_and_not_the_place(run):
    folder = run / "teacher" / "model"
    copy = shutil.copytree(folder, run / "copy")
    tiny_bert(layers=2, seed=1).save_pretrained(run / "other")
    assert weight_fingerprint(folder) == weight_fingerprint(copy) != weight_fingerprint(run / "other")


def test_names(run):
    assert display_name(str(run / "teacher" / "model")) == "teacher"
    assert display_name(str(run / "teacher")) == "teacher"
    assert display_name("org/model") == "org/model"


def test_method_comes_from_the_manifest(run):
    assert recorded_method(str(run / "teacher" / "model"), "–") == "fine-tuning"
    tiny_bert(layers=2).save_pretrained(run / "stock")
    assert recorded_method(str(run / "stock"), "teacher") == "teacher"


def test_refuses_a_hub_model_that_is_not_here():
    with pytest.raises(ValueError, match="'org/never-downloaded' to be downloaded already"):
        local_folder("org/never-downloaded")
