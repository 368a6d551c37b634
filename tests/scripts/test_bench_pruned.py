"""The benchmarks of pruned models: shapes, counts, ratios and verdicts by hand; nothing is timed."""

import pytest


@pytest.fixture(scope="module")
def scripts():
    import bench_pruning
    import bench_shrink
    import bench_speedup_target

    return bench_shrink, bench_pruning, bench_speedup_target


@pytest.fixture
def bench_shrink(scripts):
    return scripts[0]


@pytest.mark.parametrize("kind", ["even", "uneven", "fewer"])
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_shapes_have_the_flops_that_they_are_to_have(bench_shrink, ratio, kind):
    shape = bench_shrink.sizes(ratio, kind, seed=0)
    full = bench_shrink.flops(bench_shrink.build([(12, 1536)] * 6))
    # Projections, scores and their sum, and the two of the network: twice the multiplications.
    assert full == 2 * 128 * 6 * (4 * 384**2 + 2 * 128 * 384 + 2 * 384 * 1536)
    assert full / bench_shrink.flops(bench_shrink.build(shape)) == pytest.approx(ratio, rel=0.03)
    assert len(shape) == 6 or kind == "fewer"
    assert (len(set(shape)) == 1) == (kind == "even")


def test_rounding_is_up_and_never_beyond_what_there_was(bench_shrink):
    assert bench_shrink.rounded([(3, 154), (0, 160), (12, 1530)], 16) == [(3, 160), (0, 160), (12, 1536)]


def row(model, ms, texts, latency=None, throughput=None):
    return {
        "model": model,
        "cpu": {"latency_ms": {"p50": ms}, "throughput": {"32": {"texts_per_second": texts}}},
        "ratio": {"cpu_latency": {"median": latency}, "cpu_throughput_32": {"median": throughput}},
    }


def test_the_encoder_is_what_is_left_without_the_rest(bench_shrink):
    rows = [row("full", 21.0, 32), row("no blocks", 1.0, 320)]
    rows.append(row("round to 1", 6.0, 128, latency=0.3, throughput=3.9))
    record = {"rows": rows, "flops": {"full": 800, "round to 1": 200}}
    single = bench_shrink.figures(record, "round to 1", "single")
    assert single["flops"] == 4.0 and single["encoder"] == pytest.approx(20 / 5)
    assert single["model"] == pytest.approx(1 / 0.3)
    batch = bench_shrink.figures(record, "round to 1", "batch")
    # 1000, 250 and 100 ms.
    assert batch["encoder"] == pytest.approx(900 / 150) and batch["model"] == 3.9


def test_targets_are_judged_by_the_encoder(bench_shrink):
    record = {"ratio": 4, "kind": "even", "lengths": "fixed", "shapes": {"round to 16": []}}
    record["flops"] = {"full": 400, "round to 16": 100}
    for small, mark in ((290.0, "✓"), (310.0, "✗")):
        rows = [row("full", 1, 32), row("no blocks", 1, 32e9)]
        rows.append(row("round to 16", 1, 32 / (small / 1000), 1, 3.0))
        last = bench_shrink.table([{**record, "rows": rows}], "fixed", "batch").splitlines()[-1]
        assert f"{1000 / small / 4:.2f} {mark} |" in last and "rounded to 16" in last


def test_what_rounding_brings_is_a_mean_of_ratios(bench_shrink):
    def session(flops, ms):
        rows = [row("full", 10.0, 32), row("no blocks", 0.1, 3200)]
        rows.append(row("round to 1", 2.0, 32 / 0.2, 0.2, 5.0))
        rows += [row(f"round to {step}", ms, 32 / (ms / 10), 0.2, 5.0) for step in (16, 32, 64)]
        counts = {"full": 1000, "round to 1": 100} | {f"round to {step}": flops for step in (16, 32, 64)}
        return {"kind": "uneven", "lengths": "fixed", "rows": rows, "flops": counts}

    lines = bench_shrink.rounding_table([session(200, 1.0), session(100, 8.0)]).splitlines()
    # Twice and once the FLOPs; half and four times the time.
    assert lines[2:] == [f"| uneven | rounded to {n} | +41.4% | +41.4% | +41.4% |" for n in (16, 32, 64)]


def test_speedups_within_a_tenth_are_met(scripts):
    bench = scripts[2]
    ratio = {"cpu_latency": {"median": 0.5, "low": 0.4, "high": 0.625}}
    rows = [{"model": "full"}, {"model": "random", "ratio": ratio}]
    record = {"batch": 1, "rows": rows, "table": {"random": 2.01}}
    near = bench.table([{**record, "speedup": 2.1}]).splitlines()[-1]
    assert near == "| 2.1× | random | 2.01× | 2.00× (1.60–2.50) | -4.8% ✓ |"
    assert bench.table([{**record, "speedup": 2.3}]).endswith("-13.0% ✗ |")


def test_allocation_of_the_script_meets_the_table(scripts, monkeypatch, tmp_path):
    """With costs that are known, what is left is worth half of the time, and the best units are left."""
    bench = scripts[2]
    from lit_compress.pruning.counting import WeightCount
    from lit_compress.pruning.target import Target
    from tests.tiny import tiny_bert

    class Table(WeightCount):
        def speedup(self, gates):
            return 1 / (1 - self.removed(gates))

        @classmethod
        def of(cls, model, groups, setting):
            return cls(model, groups)

    monkeypatch.setattr(bench, "LatencyTable", Table)
    monkeypatch.setattr(bench, "from_pretrained", lambda source, labels: tiny_bert(layers=2, labels=labels))
    for kind in bench.SCORES:
        _, said, kept = bench.closed(kind, Target(speedup=2.0), seed=0)
        assert said == pytest.approx(2.0, rel=0.02)
        assert len(kept) == 4 and all(count >= 1 for count in kept.values())


def test_every_variant_of_pruning_can_be_built(scripts):
    import bench_training_worker as worker

    groups = scripts[1].groups()
    variants = [variant for group in groups.values() for variant in group.variants]
    built = [worker.own_callbacks(variant.settings) for variant in variants]
    assert sum(map(len, built)) == len(variants) - len(groups)
    assert all(group.variants[0].settings == {} for group in groups.values())
    assert {variant.target for variant in variants if "FLOP" not in variant.name} == {None, 1.15}


def test_every_variant_of_rounding_can_be_built():
    import bench_qat
    import bench_training_worker as worker

    variants = [variant for group in bench_qat.groups().values() for variant in group.variants]
    built = [callback for variant in variants for callback in worker.own_callbacks(variant.settings)]
    assert len(built) == len(variants) - 2
    assert {callback.ranges for callback in built} == {"moving_average", "dynamic", "mse", "none"}
    assert all(callback.quantize_at == 0.0 for callback in built)


def test_refuses_a_group_that_does_not_exist(scripts, capsys):
    import bench_callbacks

    with pytest.raises(SystemExit):
        bench_callbacks.arguments(scripts[1].BENCH, ["--groups", "speed"])
    assert "Expected groups among gates, movement, scores but got speed" in capsys.readouterr().err
