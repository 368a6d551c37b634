import numpy as np
import pytest

from lit_compress.data.labels import Column, infer_labels


def column(values, start=0):
    return Column(values, np.arange(start, start + len(values)), "train.tsv", "label")


def infer(values, explicit=None, stored=None):
    return infer_labels(column(values), explicit, stored)


@pytest.mark.parametrize(
    ("values", "names", "ids"),
    [
        ([1, 0, 2], ["0", "1", "2"], [1, 0, 2]),
        (["1", "0", "01"], ["0", "1"], [1, 0, 1]),
        (["pos", "neg", "pos"], ["neg", "pos"], [1, 0, 1]),
        ([True, False], ["False", "True"], [1, 0]),
        (["1", "a", "1"], ["1", "a"], [0, 1, 0]),
    ],
)
def test_classes_are_found(values, names, ids):
    labels = infer(values)
    assert labels.names == names
    assert labels.num_labels == len(names)
    encoded = labels.encode(column(values))
    assert encoded.dtype == np.int64
    assert encoded.tolist() == ids


@pytest.mark.parametrize("values", [[0.5, 1, 2.0], ["0.5", "1", "2e0"], [0.5, 1.0, 2.0]])
def test_floats_mean_regression(values):
    labels = infer(values)
    assert labels.names is None
    assert labels.num_labels == 1
    targets = labels.encode(column(values))
    assert targets.dtype == np.float32
    assert targets.tolist() == [0.5, 1.0, 2.0]


def test_explicit_names_give_the_order():
    assert infer(["neg", "pos"], ["pos", "neg"]).encode(column(["neg"])).tolist() == [1]


def test_explicit_names_describe_ids():
    labels = infer([0, 2, 1], ["bad", "fair", "good"])
    assert labels.names == ["bad", "fair", "good"]
    assert labels.encode(column([2])).tolist() == [2]


def test_explicit_numbers_are_names():
    assert infer([1, 5, 3], ["1", "3", "5"]).encode(column([5.0, 1, "3"])).tolist() == [2, 0, 1]


def test_explicit_names_make_whole_floats_classes():
    assert infer([0.0, 1.0], ["no", "yes"]).encode(column([1.0])).tolist() == [1]


def test_stored_names_are_used_and_a_class_may_be_rare():
    assert infer([0, 2], stored=["a", "b", "c"]).names == ["a", "b", "c"]


def test_other_splits_of_numerals_only():
    # On its own this split would read as integers.
    assert infer(["1", "a"]).encode(column(["1", "1"])).tolist() == [0, 0]


def refusal(values, explicit=None, stored=None):
    with pytest.raises(ValueError) as error:
        infer(values, explicit, stored)
    return str(error.value)


@pytest.mark.parametrize("empty", [None, "", "  ", float("nan")])
def test_refuses_an_empty_label(empty):
    message = refusal([1, empty, 0] if not isinstance(empty, str) else ["1", empty, "0"])
    assert "row 1, column 'label' of train.tsv but it is empty" in message


def test_refuses_one_class():
    assert "at least two classes in column 'label' of train.tsv but all 3 rows are '1'" in refusal([1, 1, 1])


def test_refuses_one_explicit_class_in_the_data():
    assert "at least two classes" in refusal([1, 1], ["a", "b"])


def test_refuses_constant_targets():
    assert "all 2 rows hold 1.5" in refusal([1.5, 1.5])


def test_refuses_gaps_in_integer_labels():
    message = refusal([1, 3, 5])
    assert "without gaps in column 'label' of train.tsv but got [1, 3, 5] (0 never occurs)" in message
    assert "labels: [1, 3, 5]" in message


def test_refuses_labels_out_of_range_of_stored_names():
    assert "one of the 2 classes [a, b] in row 1" in refusal([0, 2], stored=["a", "b"])


def test_refuses_negative_labels():
    assert "but got -2" in refusal([0, -2, 1])


def test_refuses_hidden_labels():
    message = refusal([0, 1, -1])
    assert "row 2" in message
    assert "hidden label (the test files of GLUE)" in message
    assert "predict" in message


def test_refuses_a_label_of_another_split():
    labels = infer(["neg", "pos"])
    with pytest.raises(ValueError, match=r"one of the 2 classes .neg, pos. in row 11, .* but got 'neutral'"):
        labels.encode(column(["pos", "neutral"], start=10))


def test_refuses_names_that_do_not_cover_the_labels():
    assert "in row 1, column 'label' of train.tsv but got 'c'" in refusal(["a", "c"], ["a", "b"])


@pytest.mark.parametrize("names", [["a"], ["a", "a"], ["1", "01"]])
def test_refuses_useless_names(names):
    assert "at least two different class names" in refusal(["a", "b"], names)


def test_refuses_a_text_column_as_label():
    message = refusal([f"text number {row}" for row in range(30)])
    assert "30 different values in 30 rows" in message
    assert "it looks like text: set 'label'" in message


def test_refuses_labels_that_differ_in_blanks():
    assert "both 'pos' and 'pos '" in refusal(["neg", "pos", "pos "])


def test_refuses_lists_as_labels():
    assert "got list" in refusal([[1, 2], [3]])


def test_refuses_text_among_targets():
    labels = infer([0.5, 1.5])
    with pytest.raises(ValueError, match=r"a finite number in row 0, .* but got 'good'"):
        labels.encode(column(["good"]))


def test_refuses_infinite_targets():
    assert "finite number in row 1" in refusal([0.5, float("inf")])
