"""What a train script's description says of its loss."""

from argparse import Namespace

import pytest
import torch

from segdre_plugin import SegDREError
from segdre_plugin.adapters import atlop, dreeam
from segdre_plugin.backbones.script import Script

ONE = torch.tensor(1.0)


def script(loss):
    return Script(file="train.py", patch="", versions={}, checkpoint="", save_path="", loss=loss)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ONE, r"expected terms of a loss by rows, got tensor\(1\.\)"),
        ({}, "by rows, got none"),
        ({"rows": ONE}, "by rows, got rows"),
        ({"pairs": torch.ones(2)}, "expected a loss, got Tensor"),
        ({"pairs": ONE, "positive": None}, "expected a loss, got NoneType"),
    ],
)
def test_terms_are_checked(found, words):
    with pytest.raises(SegDREError, match=f'{words}.*\n  -> say in Script.loss .*"pairs": loss'):
        script(lambda args, output: found).terms(Namespace(), None)


def test_terms_of_the_adapters():
    args = Namespace(evi_lambda=0.1, attn_lambda=10.0)
    assert atlop.SCRIPT.terms(args, (ONE, None)) == {"pairs": ONE}
    losses = {"rel_loss": torch.tensor(2.0), "evi_loss": torch.tensor(3.0)}
    assert dreeam.SCRIPT.terms(args, {"loss": losses}) == {"pairs": 2.0, "positive": torch.tensor(3.0) * 0.1}
    taught = {"rel_loss": torch.tensor(2.0), "attn_loss": torch.tensor(3.0)}
    assert dreeam.SCRIPT.terms(args, {"loss": taught}) == {"pairs": 32.0}
