import pytest
import yaml

from lit_compress.report.columns import all_columns
from lit_compress.report.seeds import add_setting, common_name, means, setting_of
from tests.report.rows import make_row


def write_config(run, seed, lr=1e-4):
    run.mkdir(parents=True)
    config = {
        "seed_everything": seed,
        "run_dir": str(run),
        "trainer": {"logger": [{"init_args": {"save_dir": str(run)}}]},
        "model": {"init_args": {"lr": lr}},
        "data": {"init_args": {"seed": seed, "batch_size": 8}},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def test_seed_and_folder_make_no_difference_and_all_else_does(tmp_path):
    first, second = write_config(tmp_path / "a", 0), write_config(tmp_path / "b", 1)
    assert setting_of(first)[0] == setting_of(second)[0]
    assert (setting_of(first)[1], setting_of(second)[1]) == (0, 1)
    assert setting_of(write_config(tmp_path / "c", 0, lr=2e-4))[0] != setting_of(first)[0]


def test_what_cannot_be_read_has_no_setting(tmp_path):
    assert setting_of(tmp_path) is None
    (tmp_path / "config.yaml").write_text("- no\n- mapping\n")
    assert setting_of(tmp_path) is None
    (tmp_path / "config.yaml").write_text("a: [")
    assert setting_of(tmp_path) is None


def test_rows_of_a_model_folder_take_the_setting_and_seed_of_the_run_above(tmp_path):
    run = write_config(tmp_path / "run", 7)
    row = make_row(run=str(run / "model"), seed=None)
    add_setting(row, tmp_path / "elsewhere.jsonl")
    assert (row["setting"], row["seed"]) == setting_of(run)


def rows_of(values, **changes):
    return [
        make_row(
            model=f"pkd-3L-s{seed}",
            run=f"runs/{seed}",
            seed=seed,
            setting="x",
            quality__value=value,
            **changes,
        )
        for seed, value in enumerate(values)
    ]


def test_mean_and_standard_deviation_by_hand():
    (mean,) = means(rows_of([0.80, 0.84, 0.88]))
    quality = next(column for column in all_columns([make_row()]) if column.key == "quality")
    assert mean.name == "pkd-3L"
    assert mean.value(quality) == pytest.approx(0.84)
    # ((0.04² + 0 + 0.04²) / 2) ** 0.5
    assert mean.spread(quality) == pytest.approx(0.04)


def test_runtimes_are_not_pooled_and_single_seeds_have_no_mean():
    rows = rows_of([0.8, 0.9]) + rows_of([0.7, 0.8], runtime="onnx-int8") + [make_row(setting="y")]
    assert [mean.rows[0]["runtime"] for mean in means(rows)] == ["torch-fp32", "onnx-int8"]


def test_the_same_seed_twice_is_no_mean():
    assert means([make_row(setting="x"), make_row(setting="x", model="again")]) == []


def test_a_figure_that_one_seed_lacks_has_no_mean():
    first, second = rows_of([0.8, 0.9])
    second["cpu"] = None
    latency = next(column for column in all_columns([first]) if column.key == "cpu_ms")
    assert means([first, second])[0].value(latency) is None


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (["pkd-3L-seed0", "pkd-3L-seed1"], "pkd-3L"),
        (["pkd-3L-s10", "pkd-3L-s11"], "pkd-3L"),
        (["soft/seed0", "soft/seed1"], "soft"),
        (["a_0", "a_1"], "a"),
        (["layers-3", "layers-4"], "layers"),
        (["x", "y"], "x"),
    ],
)
def test_common_name(names, name):
    assert common_name(names) == name
