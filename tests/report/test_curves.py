from lit_compress.report.curves import MAX_POINTS, read_curves, read_run, thin


def write(run, version, *lines):
    folder = run / "logs" / f"version_{version}"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")


def test_objectives_first_then_validation(tmp_path):
    write(
        tmp_path,
        0,
        "benchmark/seconds,epoch,step,train/soft,train/hard,train/loss,val/accuracy",
        ",0,9,0.5,0.7,0.6,",
        ",0,9,,,,0.8",
        ",1,19,0.4,0.6,0.5,",
        "3.2,1,19,,,,0.9",
    )
    curves = read_run(tmp_path)
    assert list(curves) == ["train/loss", "train/hard", "train/soft", "val/accuracy"]
    assert curves["train/soft"] == [(9, 0.5), (19, 0.4)]
    assert curves["val/accuracy"] == [(9, 0.8), (19, 0.9)]


def test_a_resumed_fit_goes_on_and_replaces_what_it_repeats(tmp_path):
    write(tmp_path, 0, "step,train/loss", "10,1.0", "20,0.9", "30,0.8")
    write(tmp_path, 1, "step,train/loss", "30,0.7", "40,0.6")
    assert read_run(tmp_path) == {"train/loss": [(10, 1.0), (20, 0.9), (30, 0.7), (40, 0.6)]}


def test_the_tenth_version_comes_after_the_second(tmp_path):
    write(tmp_path, 10, "step,train/loss", "2,0.1")
    write(tmp_path, 2, "step,train/loss", "1,0.5", "2,0.4")
    assert read_run(tmp_path)["train/loss"] == [(1, 0.5), (2, 0.1)]


def test_validating_later_is_no_curve(tmp_path):
    write(tmp_path, 0, "step,train/loss,val/accuracy", "5,1.0,", "5,,0.7")
    write(tmp_path, 1, "step,val/accuracy,test/accuracy", "0,0.7,0.6")
    assert read_run(tmp_path) == {"train/loss": [(5, 1.0)], "val/accuracy": [(5, 0.7)]}


def test_cells_that_are_no_numbers_are_left_out(tmp_path):
    write(tmp_path, 0, "step,train/loss", "1,nan", "2,0.5", "3,inf", "4,0.", "x,1", "5")
    assert read_run(tmp_path) == {"train/loss": [(2, 0.5), (4, 0.0)]}


def test_runs_are_named_by_their_folder_below_the_common_one(tmp_path):
    for name in ("a/seed0", "a/seed1", "b"):
        write(tmp_path / name, 0, "step,train/loss", "1,1")
    assert list(read_curves([tmp_path])) == ["a/seed0", "a/seed1", "b"]
    assert list(read_curves([tmp_path / "a", tmp_path / "a" / "seed0"])) == ["seed0", "seed1"]
    (tmp_path / "b" / "results.jsonl").touch()
    assert list(read_curves([tmp_path / "b" / "results.jsonl"])) == ["b"]


def test_no_logs_no_curves(tmp_path):
    assert read_curves([tmp_path]) == {}


def test_long_curves_keep_their_ends_and_no_more_points_than_can_be_seen():
    thinned = thin([(step, step / 3) for step in range(10_000)])
    assert len(thinned) == MAX_POINTS
    assert (thinned[0], thinned[-1]) == ((0, 0.0), (9999, 3333.0))
    assert [step for step, _ in thinned] == sorted({step for step, _ in thinned})
