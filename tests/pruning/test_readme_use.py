"""Pruning as somebody uses it who has a plain transformers model and no Lightning."""

import torch
from torch.nn.utils import prune

from lit_compress.pruning import shrink
from tests.tiny import tiny_batch, tiny_bert


def test_three_lines_on_a_model_that_another_tool_pruned():
    """Heads and neurons that torch's own pruning made zero are cut out, and the logits stay the same."""
    model = tiny_bert(layers=2, hidden=32, heads=4).double().eval()
    for layer in model.bert.encoder.layer:
        prune.ln_structured(layer.output.dense, "weight", amount=40, n=2, dim=1)  # 40 of 64 neurons
        prune.remove(layer.output.dense, "weight")
    with torch.no_grad():
        model.bert.encoder.layer[0].attention.output.dense.weight[:, :8] = 0  # head 0 of 4

    small = shrink(model)

    inputs = {k: v for k, v in tiny_batch().items() if k not in ("labels", "example_id")}
    with torch.no_grad():
        assert torch.allclose(small(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-10)
    layers = small.bert.encoder.layer
    assert [layer.intermediate.dense.out_features for layer in layers] == [24, 24]
    assert [layer.attention.self.query.out_features for layer in layers] == [24, 32]
    assert model.bert.encoder.layer[0].intermediate.dense.out_features == 64
