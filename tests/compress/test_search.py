"""The search: reproducible, resumed at a trial, and led by what was found."""

import pytest

from lit_compress.compress.search import FILE_NAME, Knobs, search, value_of

pytest.importorskip("optuna")


def outcome(kept, missed=0.0):
    achieved = [{"what": "quality", "share": 0.5}, {"what": "speed-up", "share": missed}]
    return {"quality_kept": kept, "achieved": achieved}


def quality(knobs):
    """Best at a learning rate of 1e-4."""
    import math

    return 0.9 if knobs is None else 1.0 - 0.1 * abs(math.log10(knobs.lr) + 4)


class Runner:
    def __init__(self, stop=None):
        self.seen, self.stop = [], stop

    def __call__(self, number, knobs):
        if number == self.stop:
            raise KeyboardInterrupt
        self.seen.append((number, knobs))
        return outcome(quality(knobs))


def test_the_first_trial_is_the_recipe_and_the_best_one_comes_first(tmp_path):
    runner = Runner()
    trials = search(tmp_path, 5, 0, runner)
    assert runner.seen[0] == (0, None)
    assert [number for number, _ in runner.seen] == [0, 1, 2, 3, 4]
    assert [trial.value for trial in trials] == sorted((quality(k) for _, k in runner.seen), reverse=True)
    for _, knobs in runner.seen[1:]:
        assert 3e-5 <= knobs.lr <= 5e-4 and 1 <= knobs.temperature <= 8 and 0.25 <= knobs.freeze_at <= 0.5


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_stopped_and_resumed_it_is_the_search_that_was_never_stopped(stop, tmp_path):
    whole = Runner()
    expected = search(tmp_path / "whole", 7, 3, whole)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "stopped", 7, 3, Runner(stop))
    rest = Runner()
    assert search(tmp_path / "stopped", 7, 3, rest) == expected
    assert rest.seen == whole.seen[stop:]


def test_finished_trials_are_enough(tmp_path):
    expected = search(tmp_path, 3, 0, Runner())
    runner = Runner()
    assert search(tmp_path, 3, 0, runner) == expected
    assert runner.seen == []
    assert len((tmp_path / FILE_NAME).read_text().splitlines()) == 3


def test_another_seed_suggests_otherwise(tmp_path):
    first, second = Runner(), Runner()
    search(tmp_path / "a", 2, 0, first)
    search(tmp_path / "b", 2, 1, second)
    assert first.seen[1] != second.seen[1]


def test_a_missed_wish_costs_its_share():
    # The miss of the quality itself is in the quality already.
    assert value_of(outcome(0.97)) == 0.97
    assert value_of(outcome(0.97, missed=0.2)) == pytest.approx(0.77)


def test_knobs_are_words_that_the_fit_knows():
    knobs = Knobs(1e-4, 2.0, 0.4)
    assert knobs.words(False, True) == [
        "--model.optimizer.lr=0.0001",
        "--model.objectives.soft.temperature=2",
        "--trainer.callbacks.freeze_at=0.4",
    ]
    assert knobs.words(True, False) == ["--model.optimizer.lr=0.0001"]


class Failing(Runner):
    """Trial 1 fails, trial 2 keeps nothing that could be told."""

    def __call__(self, number, knobs):
        found = super().__call__(number, knobs)
        if number == 1:
            raise ValueError("the loss is no number")
        return outcome(None) if number == 2 else found


def test_a_trial_that_fails_or_has_no_quality_is_a_trial_and_never_the_best_one(tmp_path, capsys):
    first = Failing()
    trials = search(tmp_path, 5, 0, first)
    assert [number for number, _ in first.seen] == [0, 1, 2, 3, 4]
    assert sorted(trial.number for trial in trials) == [0, 3, 4]
    assert "The trial failed and counts as one: the loss is no number" in capsys.readouterr().out
    again = Failing()
    assert search(tmp_path, 5, 0, again) == trials
    assert again.seen == []


def test_the_recipe_as_it_is_must_not_fail(tmp_path):
    def fails(number, knobs):
        raise ValueError("the stage fit")

    with pytest.raises(ValueError, match="the stage fit"):
        search(tmp_path, 2, 0, fails)


def test_an_original_without_a_quality_to_share_is_told(tmp_path):
    with pytest.raises(ValueError, match="a trial that keeps a share of the original's quality but"):
        search(tmp_path, 2, 0, lambda number, knobs: outcome(None))
