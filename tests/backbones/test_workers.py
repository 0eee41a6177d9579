"""Several processes that train one model: their parts of the work, and the weights of their means."""

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler, RandomSampler

from segdre_plugin import SegDREError
from segdre_plugin.backbones import launched
from segdre_plugin.backbones.clones.stand_ins import progress_loader
from segdre_plugin.backbones.launched import Launched, choose_gpu, joined
from segdre_plugin.backbones.trainer import BatchLoss, Held
from segdre_plugin.backbones.workers import ALONE, PlainSteps, SharedBatches, Workers


class Pretended(Workers):
    """One of several processes, without the others: what they would send is given."""

    def __init__(self, rank, size, gathered=None, shared=None, totals=None):
        self.rank, self.size = rank, size
        self.gathered, self.shared, self.totals = gathered, shared, totals

    def gather(self, value):
        return self.gathered

    def share(self, value):
        return value if self.is_main else self.shared

    def total(self, numbers):
        return self.totals


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("n", [0, 1, 5, 7])
def test_each_item_is_done_once_and_comes_back_in_order(size, n):
    items = list(range(n))
    parts = [Pretended(rank, size).part(items) for rank in range(size)]
    assert sorted(item for part in parts for item in part) == items
    for rank in range(size):
        assert Pretended(rank, size, gathered=parts).merge(parts[rank]) == items


@pytest.mark.parametrize("size", [2, 3])
def test_batches_are_those_that_one_process_draws(size):
    def drawn(workers):
        torch.manual_seed(7)
        loader = progress_loader("", workers=workers)(range(11), batch_size=4, shuffle=True, drop_last=True)
        return [batch.tolist() for _ in range(2) for batch in loader]  # two epochs

    whole = drawn(ALONE)
    main = drawn(Pretended(0, size))
    torch.manual_seed(7)
    orders = []
    for _ in range(2):
        torch.empty((), dtype=torch.int64).random_()  # what a data loader draws when it is iterated
        orders.append(list(BatchSampler(RandomSampler(range(11)), 4, drop_last=True)))
    others = [
        [batch for order in orders for batch in SharedBatches(None, Pretended(rank, size, shared=order))]
        for rank in range(1, size)
    ]
    assert len(main) == len(whole) == 4
    for k, batch in enumerate(whole):
        parts = [main[k], *(list(other[k]) for other in others)]
        assert sorted(item for part in parts for item in part) == sorted(batch)
        assert all(parts)


class TestWeights:
    """Gradients that are averaged over processes, beside those of the whole batch; two means of different rows."""

    ROWS = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    PARTS = ((0, 2), (2, 3), (3, 9))  # of the rows; the second process has no positive ones
    POSITIVE = torch.tensor([1, 0, 0, 1, 1, 0, 1, 1, 1], dtype=torch.bool)

    def model(self):
        torch.manual_seed(0)
        return nn.Linear(4, 3).double()

    def terms(self, model, rows, positive):
        found = model(rows).square()
        chosen = found[positive, 0]
        return [(found.mean(), len(rows)), (0.5 * chosen.sum() / max(len(chosen), 1), len(chosen))]

    def averaged(self, weighed):
        totals = [len(self.ROWS), int(self.POSITIVE.sum())]
        losses, gradients = [], []
        for rank, (start, end) in enumerate(self.PARTS):
            model = self.model()
            own = slice(start, end)
            terms = self.terms(model, self.ROWS[own], self.POSITIVE[own])
            if not weighed:
                terms, totals = [(mean, 1) for mean, _ in terms], [3, 3]
            workers = Pretended(rank, 3, totals=totals)
            loss = BatchLoss(model, lambda found: found, workers)(Held(terms))
            loss.backward()
            losses.append(loss.detach())
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        return sum(losses) / 3, sum(gradients) / 3

    def test_are_those_of_the_whole_batch(self):
        model = self.model()
        due = sum(mean for mean, _ in self.terms(model, self.ROWS, self.POSITIVE))
        due.backward()
        due_gradients = torch.cat([p.grad.flatten() for p in model.parameters()])
        loss, gradients = self.averaged(weighed=True)
        assert torch.allclose(loss, due.detach(), rtol=1e-12, atol=0)
        assert torch.allclose(gradients, due_gradients, rtol=1e-12, atol=1e-14)

    def test_control_a_mean_of_means_is_another_number(self):
        due = sum(mean for mean, _ in self.terms(self.model(), self.ROWS, self.POSITIVE))
        loss, _ = self.averaged(weighed=False)
        assert abs(float((loss - due).detach())) > 0.01


class TestAccelerate:
    """One process with Accelerate's settings."""

    @pytest.fixture(autouse=True)
    def needed(self, monkeypatch):
        pytest.importorskip("accelerate", reason='no Accelerate: pip install "segdre-plugin[scale]"')
        from accelerate.state import AcceleratorState, GradientState, PartialState

        monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
        yield
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state() if state is not AcceleratorState else state._reset_state(reset_partial_state=True)

    def trained(self, engine, steps=3, accumulation=1):
        torch.manual_seed(0)
        model = nn.Linear(64, 64)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        batches = torch.randn(steps, 16, 64)
        step, stepper = engine.prepare(
            BatchLoss(model, lambda rows: [(model(rows).square().mean(), 16)], ALONE), optimizer
        )
        for k, rows in enumerate(batches):
            engine.backward(step(Held(rows)))
            if (k + 1) % accumulation == 0:
                engine.clip_grad_norm_(model.parameters(), 0.1)
                stepper.step()
                model.zero_grad()
        return model.weight.detach()

    @pytest.mark.parametrize("accumulation", [1, 3])
    def test_in_32_bits_it_takes_the_same_steps(self, accumulation):
        due = self.trained(PlainSteps(accumulation), accumulation=accumulation)
        found = self.trained(Launched(0, 1).steps(accumulation), accumulation=accumulation)
        assert torch.equal(found, due)

    def test_its_mixed_precision_is_used(self, monkeypatch):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        workers = Launched(0, 1)
        assert workers.mixed_precision == "bf16"
        found, due = self.trained(workers.steps(1)), self.trained(PlainSteps(1))
        assert not torch.equal(found, due)
        assert torch.allclose(found, due, rtol=0, atol=1e-3)

    def test_mixed_precision_that_it_would_leave_out(self, monkeypatch):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
        with pytest.raises(SegDREError, match="leaves mixed precision fp16 out on a CPU"):
            Launched(0, 1).steps(1)

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("ACCELERATE_MIXED_PRECISION", "fp8", "mixed precision is 'fp8'"),
            ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "0", "STEPS is '0'"),
            ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "two", "STEPS is 'two'"),
        ],
    )
    def test_settings_that_cannot_be_used(self, monkeypatch, name, value, words):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
        monkeypatch.setenv(name, value)
        with pytest.raises(SegDREError, match=words), joined():
            pass


def test_without_a_launcher_a_process_is_alone(monkeypatch):
    for name in ("WORLD_SIZE", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    with joined() as workers:
        assert workers is ALONE


def test_a_launcher_that_starts_one_process_for_several(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(SegDREError, match=r"only one on CPUs.*\n.*torchrun"), joined():
        pass


def test_without_accelerate(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(launched, "find_spec", lambda name: None)
    with pytest.raises(SegDREError, match=r"one of 2 processes.*\n.*pip install .*scale"), joined():
        pass


class TestGPUs:
    @pytest.fixture
    def choose(self, monkeypatch):
        def chosen(given, n, rank, processes=4):
            monkeypatch.setenv("WORLD_SIZE", str(processes))
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            monkeypatch.setenv("ACCELERATE_BYPASS_DEVICE_MAP", "")
            monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
            if given is not None:
                monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
            monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
            choose_gpu()
            return launched.os.environ.get("CUDA_VISIBLE_DEVICES")

        return chosen

    @pytest.mark.parametrize(
        ("given", "n", "rank", "own"),
        [(None, 8, 3, "3"), ("4,GPU-a,6", 3, 1, "GPU-a"), ("5", 1, 3, "5"), ("", 0, 1, ""), (None, 0, 1, None)],
    )
    def test_each_process_has_its_own(self, choose, given, n, rank, own):
        assert choose(given, n, rank) == own

    def test_one_process_has_all(self, choose):
        assert choose("0,1", 2, 0, processes=1) == "0,1"

    def test_more_processes_than_gpus(self, choose):
        with pytest.raises(SegDREError, match="process 2 of this machine: only 2 GPUs are visible"):
            choose(None, 2, 2)
