import pytest
from datasets import Dataset

from lit_compress.data import Hub, TextClassificationDataModule


@pytest.fixture
def repository(tmp_path):
    """A data set in the layout of the hub; the datasets library loads it from its folder like one."""
    folder = tmp_path / "repository"
    folder.mkdir()
    for split in ("train", "validation"):
        rows = [{"text": f"{split} text {row}", "label": row % 2} for row in range(6)]
        Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
    return str(folder)


def test_rows_of_a_data_set(repository, tokenizer_folder, tmp_path):
    source = Hub(repository)
    data = TextClassificationDataModule(source, tokenizer_folder, cache_dir=str(tmp_path / "cache"))
    assert data.num_labels == 2
    assert source.load("validation")["text"][0] == "validation text 0"
    assert source.load("test") is None
    assert (
        source.fingerprint("train")
        == Hub(repository).fingerprint("train")
        != source.fingerprint("validation")
    )


def test_splits_may_have_other_names(repository):
    assert (
        Hub(repository, train="validation", validation=None).load("train")["text"][0] == "validation text 0"
    )


def test_name_configuration_and_revision_reach_the_library(monkeypatch):
    calls = []
    monkeypatch.setattr("lit_compress.data.hub.load_dataset", lambda *a, **k: calls.append((a, k)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Hub("nyu-mll/glue", config="sst2", revision="v1").load("train")
    assert calls == [(("nyu-mll/glue", "sst2"), {"revision": "v1"})]
    assert Hub("a/b", "c", revision="d").describe("train") == "the hub data set a/b/c@d, split 'train'"


def test_refuses_a_missing_split(repository):
    with pytest.raises(
        ValueError, match=r"the split 'dev' in .* but it has train, validation; set source.test"
    ):
        Hub(repository, test="dev").load("test")


def test_refuses_a_data_set_out_of_reach():
    with pytest.raises(ValueError, match=r"the hub data set no/such but it cannot be loaded .* source.name"):
        Hub("no/such").load("train")


def test_refuses_an_unknown_configuration(repository):
    with pytest.raises(ValueError, match=r"cannot be loaded .* source.config"):
        Hub(repository, config="nope").load("train")
