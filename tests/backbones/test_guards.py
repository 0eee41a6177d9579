"""The hooks around a whole model: copied arguments, a mean over nothing, and bfloat16."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from torch import nn

from segdre_plugin import SegDREError
from segdre_plugin.backbones.guards import guard, use_bf16
from segdre_plugin.backbones.hooks import WrapState


class Careless(nn.Module):
    """A model that writes into an argument, and whose evidence loss is a mean over positive pairs."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(3, 3, bias=False)
        self.loss_fnt_evi = Mean()
        self.seen = None

    def forward(self, states, teacher=None, fail=False):
        if teacher is not None:
            teacher.mul_(2)
        self.seen = self.scale(states)
        if fail:
            raise RuntimeError("halfway")
        return self.loss_fnt_evi(self.seen[:0] if teacher is None else teacher)


class Mean(nn.Module):
    def forward(self, rows):
        return rows.mean()


def guarded(**described):
    model, state = Careless(), WrapState("dense", replace(tiny.ATLOP, **described))
    guard(model, state)
    return model, state


@pytest.mark.parametrize("by_name", [False, True])
def test_only_the_named_arguments_are_copied(by_name):
    for copied, due in ((("teacher",), 1.0), (("states",), 2.0)):  # the second is the control: it is written into
        model, _ = guarded(copied=copied)
        teacher = torch.ones(2, 3)
        args, kwargs = ((), {"teacher": teacher}) if by_name else ((teacher,), {})
        loss = model(torch.ones(2, 3), *args, **kwargs)
        assert teacher.unique().tolist() == [due]
        assert loss == 2.0  # forward saw the argument either way


def test_what_is_not_a_tensor_passes():
    model, _ = guarded(copied=("teacher", "absent"), evidence_loss="loss_fnt_evi")
    assert model(torch.ones(2, 3), None) == 0


def test_a_mean_over_nothing_is_zero_with_a_gradient():
    plain, _ = guarded()
    assert plain(torch.ones(2, 3)).isnan()
    model, _ = guarded(evidence_loss="loss_fnt_evi")
    loss = model(torch.ones(2, 3))
    loss.backward()
    assert loss == 0
    assert model.scale.weight.grad.abs().sum() == 0
    assert model(torch.ones(2, 3), torch.full((2, 3), 5.0)) == 10.0  # any other mean stays


def test_bf16_lasts_as_long_as_forward():
    model, state = Careless(), WrapState("base", tiny.ATLOP)
    model(torch.ones(2, 3))
    assert model.seen.dtype == torch.float32
    use_bf16(model, state)
    model(torch.ones(2, 3))
    assert model.seen.dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")
    with pytest.raises(RuntimeError, match="halfway"):
        model(torch.ones(2, 3), fail=True)
    assert not torch.is_autocast_enabled("cpu")
    assert model.scale(torch.ones(2, 3)).dtype == torch.float32  # outside forward


def test_a_deep_copy_has_hooks_of_its_own():
    model, state = Careless(), WrapState("base", tiny.ATLOP)
    use_bf16(model, state)
    twin = copy.deepcopy(model)
    twin(torch.ones(2, 3))
    assert twin.seen.dtype == torch.bfloat16
    assert not torch.is_autocast_enabled("cpu")


def test_undone():
    model, state = guarded(copied=("teacher",), evidence_loss="loss_fnt_evi")
    use_bf16(model, state)
    for step in reversed(state.undo):
        step()
    teacher = torch.ones(2, 3)
    assert model(torch.ones(2, 3), teacher) == 2.0
    assert teacher.unique().tolist() == [2.0]
    assert model.seen.dtype == torch.float32
    assert model(torch.ones(2, 3)).isnan()


class OnSecondGpu(Careless):
    def parameters(self, recurse=True):
        yield SimpleNamespace(device=torch.device("cuda", 1))


def test_a_gpu_without_bf16_is_refused_and_nothing_is_hooked(old_gpu):
    model, state = OnSecondGpu(), WrapState("base", tiny.ATLOP)
    with pytest.raises(SegDREError, match=r"Tesla V100 .*expected compute capability 8\.0 or more, got 7\.0") as caught:
        use_bf16(model, state)
    assert "--seg-bf16" in caught.value.hint
    assert not state.undo
    assert not model._forward_hooks
    use_bf16(Careless(), state)  # a CPU computes in it


def test_a_gpu_with_bf16_is_not(old_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    state = WrapState("base", tiny.ATLOP)
    use_bf16(OnSecondGpu(), state)
    assert state.undo
