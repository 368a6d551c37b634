"""How long a fit is, by hand."""

import pytest

from lit_compress.compress.length import STEPS, Length, length_for


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (67_349, Length(3, 0, 6315)),  # 2,105 steps a pass; with copies one pass alone has 8,419
        (6_920, Length(6, 3, 5190)),  # 865 steps a pass
        (3_668, Length(11, 3, 5049)),  # 459
        (1_000_000, Length(2, 0, 62_500)),  # never once only
        (1, Length(STEPS, 3, STEPS)),
    ],
)
def test_the_fewest_passes_with_enough_steps(texts, expected):
    assert length_for(texts, 32) == expected


def test_only_a_fit_that_prunes_is_made_longer():
    assert Length(6, 3, 5190).words(True) == [
        *("--data.augment.copies=3", "--trainer.max_epochs=6"),
        "--trainer.val_check_interval=0.25",
    ]
    assert Length(50, 3, 5000).words(True)[-1] == "--trainer.val_check_interval=1.0"
    assert Length(3, 0, 6315).words(False) == ["--data.augment=null"]
