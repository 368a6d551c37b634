import itertools

import pytest

from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.session import run_session

LENGTHS = (2, 4, 6)


def session(protocol, *folders):
    return run_session([Candidate(f.rsplit("/", 1)[1], f) for f in folders], protocol, "cpu")


def test_rounds_are_kept_and_warm_up_is_not(fake_workers, fake_folder):
    (series,) = session(Protocol(LENGTHS, rounds=4, warmup=2), fake_folder("a", seconds=1e-3, peak_bytes=77))
    assert series.error is None
    assert len(series.latency) == len(series.throughput) == len(series.wall_latency) == 4
    assert all(len(texts) == 3 for texts in series.latency)
    for texts, wall, batch in zip(series.latency, series.wall_latency, series.throughput, strict=True):
        assert [t / texts[0] for t in texts] == pytest.approx([1, 2, 3])
        assert batch == pytest.approx(sum(texts))
        assert wall == pytest.approx([2 * t for t in texts])
    assert series.peak_bytes == 77


def test_models_take_turns_in_random_order(fake_workers, fake_folder, tmp_path):
    log = tmp_path / "log"
    session(Protocol(LENGTHS, rounds=12, warmup=0), *(fake_folder(n, log=str(log)) for n in "abc"))
    done = [line.split() for line in log.read_text().splitlines()]
    turns = [name for name, do in done if do == "latency"]
    rounds = ["".join(turns[i : i + 3]) for i in range(0, len(turns), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 2


def test_all_models_see_the_same_texts_in_a_round(fake_workers, fake_folder):
    # The fake machine's speed depends on the seed of the request: equal seeds cancel in the ratio.
    fast, slow = session(Protocol(LENGTHS), fake_folder("a", seconds=1e-3), fake_folder("b", seconds=2e-3))
    for mine, other in zip(itertools.chain(*slow.latency), itertools.chain(*fast.latency), strict=True):
        assert mine / other == pytest.approx(2)
    assert len({texts[0] for texts in fast.latency}) > 1


@pytest.mark.parametrize(
    ("trouble", "message"),
    [
        ({"do": "load", "then": "fail"}, "'load' failed"),
        ({"do": "latency", "then": "crash", "rounds": 3}, "exit status 1 during 'latency'"),
        ({"do": "throughput", "then": "kill", "rounds": 2}, "SIGKILL"),
        ({"do": "latency", "then": "hang"}, "no answer to 'latency'"),
        ({"do": "memory", "then": "fail"}, "'memory' failed"),
    ],
)
def test_others_survive_a_model_that_fails(fake_workers, fake_folder, trouble, message):
    protocol = Protocol(LENGTHS, rounds=4, timeout=1.0)
    good, bad, other = session(protocol, fake_folder("a"), fake_folder("b", **trouble), fake_folder("c"))
    assert message in bad.error
    assert good.error is None and other.error is None
    assert len(good.latency) == len(other.latency) == 4


def test_missing_folder_is_an_error_of_that_model_alone(fake_workers, fake_folder):
    good, bad = session(Protocol(LENGTHS, rounds=3), fake_folder("a"), "/nowhere/model")
    assert "Expected the model folder '/nowhere/model'" in bad.error
    assert good.error is None


def test_budget_ends_the_rounds_but_not_below_the_minimum(fake_workers, fake_folder):
    protocol = Protocol(LENGTHS, rounds=1000, min_rounds=5, max_seconds=0.0)
    (series,) = session(protocol, fake_folder("a"))
    assert len(series.latency) == 5


def test_model_with_another_tokenizer_sees_its_own_lengths(fake_workers, fake_folder):
    candidates = [Candidate("a", fake_folder("a")), Candidate("b", fake_folder("b"), lengths=(4, 8, 12))]
    mine, other = run_session(candidates, Protocol(LENGTHS, rounds=3), "cpu")
    assert other.latency[0][0] / mine.latency[0][0] == pytest.approx(2)
