"""The worked example of docs/adapters.md, as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from transformers import Data2VecTextConfig, Data2VecTextForSequenceClassification

from lit_compress.models.anatomy import FAMILIES, UniformShape
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shrink import shrink
from tests.pruning.gating import STRUCTURES, close_at_random, fix

PAGE = Path(__file__).parents[3] / "docs" / "adapters.md"


@pytest.fixture
def names():
    """What the code of the page defines; the families that it adds are taken out again."""
    before = dict(FAMILIES)
    found = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(found) == 3
    defined = {}
    try:
        for code in found:
            exec(compile(code, str(PAGE), "exec"), defined)
        yield defined
    finally:
        FAMILIES.clear()
        FAMILIES.update(before)


def test_the_worked_example_runs(names):
    assert names["difference"] < 1e-10 and "gpt_neox" in FAMILIES
    groups = find_groups(names["small"], ["head", "neuron"], strict=False)
    full = find_groups(names["model"], ["head", "neuron"])
    assert 0 < sum(group.units for group in groups) < sum(group.units for group in full)


def test_the_worked_example_writes_its_configuration(names):
    config = names["GPTNeoXConfig"](vocab_size=60, bos_token_id=1, **names["sizes"])
    FAMILIES["gpt_neox"].write_config(config, UniformShape(heads=2, hidden=12, neurons=8))
    assert (config.num_attention_heads, config.hidden_size, config.intermediate_size) == (2, 12, 8)
    with pytest.raises(ValueError, match=r"hidden = heads x 6, .* 'gpt_neox' has no width"):
        FAMILIES["gpt_neox"].write_config(config, UniformShape(heads=1))


def test_the_worked_example_generates_with_a_cache(names):
    model = names["GPTNeoXForCausalLM"](
        names["GPTNeoXConfig"](vocab_size=60, bos_token_id=1, **names["sizes"])
    )
    model = model.double().eval()
    gates = fix(model, ["head"])
    gates.of(gates.groups[0]).open[:] = 0.0
    small, tokens, cache, steps = shrink(model), names["tokens"], None, []
    with torch.no_grad():
        for position in range(tokens.shape[1]):
            out = small(tokens[:, position : position + 1], past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            steps.append(out.logits)
        assert (torch.cat(steps, 1) - model(tokens).logits).abs().max() < 1e-10


def test_a_copied_layout_needs_one_line(names):
    sizes = {"hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 20, "num_hidden_layers": 2}
    model = Data2VecTextForSequenceClassification(Data2VecTextConfig(vocab_size=60, **sizes)).double().eval()
    close_at_random(fix(model, STRUCTURES))
    tokens = torch.randint(4, 60, (2, 7))
    with torch.no_grad():
        assert (shrink(model)(tokens).logits - model(tokens).logits).abs().max() < 1e-10
