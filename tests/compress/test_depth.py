"""With how many blocks a fit begins, and that its words say so."""

import pytest
import yaml
from transformers import AlbertForSequenceClassification

from lit_compress.compress.depth import DEEPEST_CUT, choose_depth, depths_of, layers_kept
from lit_compress.compress.fits import fits_of
from lit_compress.compress.length import Length
from lit_compress.compress.plan import Plan, Start, read_plan
from lit_compress.compress.planning import Figures, OutOfReachError, Storage
from tests.tiny import tiny_model


def curve(whole, tried):
    """Blocks that cost the same each: what has to go of those that are left."""

    def figures_at(blocks):
        tried.append(blocks)
        return Figures(1.0, Storage(), "onnx-int8", 50.0, 1, max(1.0, whole(blocks)))

    return figures_at


def test_a_cut_that_leaves_wide_blocks_keeps_all():
    tried = []
    blocks, figures = choose_depth(range(1, 7), curve(lambda blocks: DEEPEST_CUT * blocks / 6, tried))
    assert (blocks, tried) == (6, [6])
    assert figures.cut == DEEPEST_CUT


@pytest.mark.parametrize(
    ("cut", "depths"), [(5.0, [6, 5]), (6.8, [6, 4, 3]), (9.0, [6, 3]), (13.5, [6, 2]), (27.0, [6, 1])]
)
def test_a_deeper_cut_begins_with_as_many_blocks_as_stay_wide(cut, depths):
    tried = []
    blocks, figures = choose_depth(range(1, 7), curve(lambda blocks: cut * blocks / 6, tried))
    assert (blocks, tried) == (depths[-1], depths)
    assert figures.cut <= DEEPEST_CUT < cut * (blocks + 1) / 6


def test_goes_on_where_fewer_blocks_save_less_than_their_share():
    tried = []
    blocks, _ = choose_depth(range(1, 7), curve(lambda blocks: 6.1 * (blocks / 6) ** 0.5, tried))
    assert tried == [6, 5, 4, 3] and blocks == 3


def test_what_all_blocks_cannot_reach_fewer_may():
    def figures_at(blocks):
        if blocks > 2:
            raise OutOfReachError("too slow")
        return Figures(2.0, Storage(), "onnx-int8", 100.0, 1, 2.0)

    assert choose_depth(range(1, 9), figures_at)[0] == 2


def test_says_so_where_not_even_one_block_is_fast_enough():
    tried = []

    def figures_at(blocks):
        tried.append(blocks)
        raise OutOfReachError(f"too slow with {blocks}")

    with pytest.raises(OutOfReachError, match="too slow with 1$"):
        choose_depth(range(1, 7), figures_at)
    assert tried == [6, 3, 1]


def test_what_keeps_its_depth_is_pruned_as_deep_as_it_must_be():
    tried = []
    blocks, figures = choose_depth(range(6, 7), curve(lambda blocks: 9.0, tried))
    assert (blocks, figures.cut, tried) == (6, 9.0, [6])


@pytest.mark.parametrize(("groups", "depths"), [(1, range(1, 5)), (2, range(4, 5))])
def test_an_albert_of_several_groups_keeps_its_depth(groups, depths):
    config = tiny_model("albert", layers=4).config
    config.num_hidden_groups = groups
    assert depths_of(AlbertForSequenceClassification(config)) == depths


def test_other_errors_are_not_taken_for_that():
    def figures_at(blocks):
        raise ValueError("no runtime")

    with pytest.raises(ValueError, match="no runtime"):
        choose_depth(range(1, 7), figures_at)


@pytest.mark.parametrize(
    ("blocks", "most", "kept"),
    [(1, 6, [3]), (2, 6, [1, 4]), (3, 6, [1, 3, 5]), (5, 6, [0, 1, 3, 4, 5]), (4, 12, [1, 4, 7, 10])],
)
def test_blocks_that_stay_are_spread_evenly(blocks, most, kept):
    assert layers_kept(blocks, most) == kept


def plan_of(order, tmp_path, structural=2.0):
    start = Start("teacher", "start", "data.yaml", 8, Length(7, 0, 6), (1, 4))
    figures = Figures(structural, Storage(), "onnx-int8", 50.0, 1, structural)
    plan = Plan({"order": order, "seed": 0, "words": []}, [], figures, (), start)
    plan.write(tmp_path)
    return plan


@pytest.mark.parametrize("order", ["joint", "chained"])
def test_the_first_fit_begins_with_these_blocks(order, tmp_path):
    stages, _ = fits_of(plan_of(order, tmp_path), tmp_path, "student", is_regression=False)
    assert {"--model.student=LayerSubset", "--model.student.source=start"} < set(stages[0].words)
    assert "--model.student.layers=[1, 4]" in stages[0].words
    for later in stages[1:]:
        assert f"--model.student.name={tmp_path / 'student-pruned' / 'model'}" in later.words


def test_gates_are_priced_in_the_runtime_of_the_plan(tmp_path):
    fits_of(plan_of("joint", tmp_path), tmp_path, "student", is_regression=False)
    callbacks = yaml.safe_load((tmp_path / "student.yaml").read_text())["trainer"]["callbacks"]
    (target,) = [one["init_args"]["target"] for one in callbacks if one["class_path"] == "L0Pruning"]
    assert target == {"speedup": 2.0, "length": 8, "runtime": "onnx-int8"}


def test_whole_blocks_alone_are_trained_as_long_as_what_is_pruned(tmp_path):
    stages, _ = fits_of(plan_of("joint", tmp_path, structural=1.0), tmp_path, "student", is_regression=False)
    assert len(stages) == 1 and "L0Pruning" not in (tmp_path / "student.yaml").read_text()
    assert {"--model.student.layers=[1, 4]", "--trainer.max_epochs=7"} < set(stages[0].words)


def test_a_plan_remembers_its_blocks(tmp_path):
    plan = plan_of("joint", tmp_path)
    assert read_plan(tmp_path, plan.request) == plan
