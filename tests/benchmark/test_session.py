import itertools

import pytest

from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.series import Series
from lit_compress.benchmark.session import run_session
from lit_compress.benchmark.workload import LATENCY

from .conftest import fake_prepare

LENGTHS = (2, 4, 6)


def protocol(**settings):
    return Protocol(
        LENGTHS, **{"rounds": 4, "min_rounds": 1, "fixed_lengths": (), "batches": (3,), **settings}
    )


def session(settings, *folders, **candidate):
    everyone = [
        Series(Candidate(f.rsplit("/", 1)[1], f, **candidate), fake_prepare(f, "", 0)) for f in folders
    ]
    run_session(everyone, settings, "cpu")
    return everyone


def test_rounds_are_kept_and_warm_up_is_not(fake_workers, fake_folder):
    (series,) = session(protocol(), fake_folder("a", seconds=1e-3, peak=77))
    assert series.error is None
    assert set(series.times) == {LATENCY, "throughput 3"}
    rounds = zip(*(series.times[name] for name in series.times), series.wall_times[LATENCY], strict=True)
    for texts, (batch,), wall in rounds:
        assert [t / texts[0] for t in texts] == pytest.approx([1, 2, 3])
        assert batch == pytest.approx(sum(texts))
        assert wall == pytest.approx([2 * t for t in texts])
    assert len(series.times[LATENCY]) == len(series.memory) == 4
    assert series.peak_bytes == 77


def test_warm_up_ends_when_two_rounds_agree(fake_workers, fake_folder):
    (steady,) = session(protocol(warmup=6), fake_folder("steady"))
    assert steady.warmup_rounds == 2


def test_warm_up_of_unstable_times_ends_all_the_same(fake_workers, fake_folder):
    steady, wild = session(protocol(warmup=4), fake_folder("steady"), fake_folder("wild", noise=0.9))
    # Nobody is measured before everybody is stable.
    assert steady.warmup_rounds == wild.warmup_rounds == 4
    assert len(wild.times[LATENCY]) == 4


def test_models_take_turns_in_random_order(fake_workers, fake_folder, tmp_path):
    log = tmp_path / "log"
    session(protocol(rounds=12, warmup=0), *(fake_folder(n, log=str(log)) for n in "abc"))
    done = [line.split(" ", 1) for line in log.read_text().splitlines()]
    turns = [name for name, do in done if do == "latency"]
    rounds = ["".join(turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 2


def test_all_models_see_the_same_texts_in_a_round(fake_workers, fake_folder):
    # The fake machine's speed depends on the seed of the request: equal seeds cancel in the ratio.
    fast, slow = session(protocol(), fake_folder("a", seconds=1e-3), fake_folder("b", seconds=2e-3))
    both = (itertools.chain(*series.times[LATENCY]) for series in (slow, fast))
    for mine, other in zip(*both, strict=True):
        assert mine / other == pytest.approx(2)
    assert len({texts[0] for texts in fast.times[LATENCY]}) > 1


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"do": "load", "then": "fail"}, "'load' failed"),
        ({"do": "latency", "then": "crash", "rounds": 3}, "exit status 1 during 'latency'"),
        ({"do": "throughput 3", "then": "kill", "rounds": 2}, "SIGKILL"),
        ({"do": "latency", "then": "hang"}, "no answer to 'latency'"),
        ({"do": "memory", "then": "fail"}, "'memory' failed"),
        ({"do": "throughput 3", "then": "hog"}, "limit was 150 MB, and was ended during 'throughput 3'"),
    ],
)
def test_others_survive_a_model_that_fails(fake_workers, fake_folder, trouble, message):
    settings = protocol(timeout=20.0 if trouble["then"] == "hog" else 1.0, memory_limit_mb=150)
    good, bad, other = session(settings, fake_folder("a"), fake_folder("b", **trouble), fake_folder("c"))
    assert message in bad.error
    assert good.error is None and other.error is None
    assert len(good.times[LATENCY]) == len(other.times[LATENCY]) == 4


def test_model_that_was_not_prepared_stays_silent(fake_workers, fake_folder):
    broken = Series(Candidate("b", "/nowhere/model"), error="no weights")
    good = Series(Candidate("a", "a"), fake_prepare(fake_folder("a"), "", 0))
    run_session([broken, good], protocol(), "cpu")
    assert broken.error == "no weights" and broken.spent == 0
    assert good.error is None


def test_budget_ends_the_rounds_but_not_below_the_minimum(fake_workers, fake_folder):
    (series,) = session(protocol(rounds=1000, min_rounds=5, max_seconds=0.0), fake_folder("a"))
    assert len(series.times[LATENCY]) == 5


def test_model_with_another_tokenizer_sees_its_own_lengths(fake_workers, fake_folder):
    own = Candidate("b", fake_folder("b"), lengths=(4, 8, 12))
    everyone = [Series(c, fake_prepare(c.folder, "", 0)) for c in (Candidate("a", fake_folder("a")), own)]
    run_session(everyone, protocol(), "cpu")
    mine, other = everyone
    assert other.times[LATENCY][0][0] / mine.times[LATENCY][0][0] == pytest.approx(2)


def test_model_leaves_out_texts_that_it_cannot_read(fake_workers, fake_folder):
    settings = protocol(fixed_lengths=(32, 128))
    long, short = session(settings, fake_folder("a", max_positions=512), fake_folder("b", max_positions=64))
    assert "latency 128" in long.times and "latency 32" in short.times
    assert "latency 128" not in short.times and short.error is None


def test_progress_is_told_and_never_goes_back(fake_workers, fake_folder):
    told = []
    series = Series(Candidate("a", "a"), fake_prepare(fake_folder("a"), "", 0))
    run_session([series], protocol(), "cpu", progress=lambda text, done: told.append((text, done)))
    shares = [done for _, done in told]
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] <= 1
    assert "cpu: round 3 of 4" in [text for text, _ in told]
