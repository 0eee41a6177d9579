"""A training step and a prediction of ATLOP: upstream as it is, wrapped plain, wrapped fast; stage by stage.

python benchmarks/steps.py                          # CPU, batch 4, all stages
python benchmarks/steps.py --device cuda --bf16     # and in bfloat16; --tf32 as users set it
python benchmarks/steps.py --size large             # RoBERTa-large with random weights; base: BERT-base
python benchmarks/steps.py --size large --longest --count   # a GPU's operations and bytes, without a GPU

Every side computes on the same real documents; upstream has no stages, so what stands beside dense and sparse is its
step on all pairs. Columns:

step_mb     what a step takes at most above what was held before it (held_mb: weights, states of the optimiser)
process_mb  the peak of a process of its own that takes three such steps (--memory)
gflop       floating-point operations in products of matrices
floor_s     the time that these take at the machine's rate for one large product in float32, or in TF32 with --tf32
            (matmul_gflop_s; with --count that of another machine: --rate)

AdamW moves seven times the weights besides (28 bytes each), at copy_gb_s.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import itertools
import multiprocessing
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from counting import PaperDevice
from timing import Row, compare, interleaved, report
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from workload import BF16, CHECKPOINTED, FAST, PLAIN, SIZES, UPSTREAM, Workload, add_places

from segdre_plugin.backbones.clones.stand_ins import with_fused_step
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.config import STAGES

MB = 1 << 20
# what torch's counter leaves out, of operands' shapes: products added in place, and a CPU's fused attention
UNCOUNTED: dict[Any, Callable[..., int]] = {
    torch.ops.aten.addmm_: lambda _, a, b, **more: 2 * a[0] * a[1] * b[1],
    torch.ops.aten.baddbmm_: lambda _, a, b, **more: 2 * a[0] * a[1] * a[2] * b[2],
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **more: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **more: sdpa_backward_flop_count(grad, q, k, v)
    ),
}


def training_step(work: Workload, model: Any, name: str, stage: str, size: int) -> Callable[[], Any]:
    """Return a function that takes one training step of a side's model: forward, backward, clipping, AdamW."""
    model.train()
    batches = work.batches(name, stage, size, model)
    adamw = with_fused_step(torch.optim.AdamW) if name in (FAST, BF16) else torch.optim.AdamW
    optimizer = adamw(model.parameters(), lr=1e-5, foreach=True if work.device.type == "meta" else None)

    def step() -> None:
        loss, *_ = model(*_moved(next(batches), work.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def prediction(work: Workload, model: Any, name: str, stage: str, size: int) -> Callable[[], Any]:
    """Return a function that predicts one batch with a side's model."""
    model.eval()
    batches = work.batches(name, stage, size, model)

    @torch.no_grad()
    def predict() -> None:
        ids, mask, _, positions, pairs = _moved(next(batches), work.device)
        model(ids, mask, None, positions, pairs)

    return predict


def step_mb(run: Callable[[], Any], device: torch.device) -> float | None:
    """Measure what a call takes at most above what was held before; None where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / MB
    _give_back()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Linux: start a new measurement of the peak
    except OSError:
        return None
    before = _status("VmRSS")
    run()
    return (_status("VmHWM") - before) / MB


def held_mb(model: torch.nn.Module, kind: str) -> float:
    """Return what is held between two steps: the weights and, in training, AdamW's two states of each."""
    return (3 if kind == "training step" else 1) * sum(p.nbytes for p in model.parameters()) / MB


def gflop(run: Callable[[], Any]) -> float:
    """Count the floating-point operations of a call's matrix products, in billions."""
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        run()
    return counter.get_total_flops() / 1e9


def rates(device: torch.device) -> dict[str, float]:
    """Measure what the machine can do: a large product in float32, and a copy."""
    one, other = torch.randn(2, 2048, 2048, device=device)
    wait = torch.cuda.synchronize if device.type == "cuda" else None
    sides = {"product": lambda: one @ other, "copy": lambda: one.repeat(8, 1)}
    best = {name: min(found) for name, found in interleaved(sides, repeats=9, synchronize=wait).items()}
    moved = (8 + 1) * one.numel() * 4
    return {"matmul_gflop_s": 2 * 2048**3 / best["product"] / 1e9, "copy_gb_s": moved / best["copy"] / 1e9}


def count(work: Workload, make: Callable[..., Callable[[], Any]], name: str, stage: str, size: int) -> Row:
    """Count the operations of a step of one side on a GPU, what it holds, and the most that it takes above that."""
    model = work.side(name, stage)
    with PaperDevice() as paper:
        paper.hold(model)
        run = make(work, model, name, stage, size)
        run()  # the optimiser makes its states
        held, paper.peak = paper.live, paper.live
        run()
        peak, operations = paper.peak, gflop(run)  # torch's counter keeps tensors alive
    return {
        "gflop": operations,
        "step_mb": (peak - held) / MB,
        "held_mb": held / MB,
        "peak_gb": peak / 1e9,
    }


def process_mb(arguments: argparse.Namespace, name: str, stage: str) -> float:
    """Measure the peak of a process that takes three training steps of one side."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_three_steps, (arguments, name, stage))


def _three_steps(arguments: argparse.Namespace, name: str, stage: str) -> float:
    work = _load(arguments)
    step = training_step(work, work.side(name, stage), name, stage, arguments.batch_size)
    for _ in range(3):
        step()
    return _status("VmHWM") / MB


def _give_back() -> None:
    """Return freed memory back to the system, so that it does not count as held."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _moved(batch: Any, device: torch.device) -> list[Any]:
    return [part.to(device) if isinstance(part, torch.Tensor) else part for part in batch]


def _load(arguments: argparse.Namespace) -> Workload:
    device = "meta" if arguments.count else arguments.device
    places = (arguments.data, arguments.clone, arguments.encoder)
    return Workload.load(*places, arguments.documents, device, arguments.size, arguments.longest)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_places(parser)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--documents", type=int, default=24, help="the first of the train file (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, help="BERT-base or RoBERTa-large, random weights (the encoder's own)")
    parser.add_argument(
        "--longest", action="store_true", help="1,024 tokens, 42 entities, 512 branch tokens a document"
    )
    parser.add_argument("--count", action="store_true", help="operations and bytes of a GPU, by shapes alone")
    parser.add_argument("--rate", type=float, metavar="GFLOP_S", help="of a large product, for the floor of --count")
    parser.add_argument("--tf32", action="store_true", help="products in TF32 (torch.set_float32_matmul_precision)")
    parser.add_argument("--checkpointing", action="store_true", help="a further side: --seg-checkpointing")
    parser.add_argument("--bf16", action="store_true", help="a further side: fast in bfloat16")
    parser.add_argument("--memory", action="store_true", help="also the peak of processes of their own (minutes)")
    parser.add_argument("--json", type=Path, default=Path("steps.json"))
    arguments = parser.parse_args()
    if arguments.count and arguments.bf16:
        raise SegDREError("--count --bf16: torch has no autocast for tensors without numbers", "leave one of them out")
    work = _load(arguments)
    cuda = work.device.type == "cuda"
    if arguments.tf32:
        torch.set_float32_matmul_precision("high")
    asked = {PLAIN: not arguments.count, FAST: True, BF16: arguments.bf16, CHECKPOINTED: arguments.checkpointing}
    sides = [UPSTREAM, *(name for name, wanted in asked.items() if wanted)]
    speed = {"matmul_gflop_s": arguments.rate} if arguments.count else rates(work.device)
    rows: list[Row] = []
    for stage, (kind, make) in itertools.product(
        arguments.stages, {"training step": training_step, "prediction": prediction}.items()
    ):
        case = f"{stage}: {kind}"
        if arguments.count:
            found = {name: count(work, make, name, stage, arguments.batch_size) for name in sides}
            for name, row in found.items():
                floor = {"floor_s": row["gflop"] / arguments.rate} if arguments.rate else {}
                rows.append({"case": case, "side": name, **row, **floor})
            continue
        models = {name: work.side(name, stage) for name in sides}
        runs = {name: make(work, models[name], name, stage, arguments.batch_size) for name in sides}
        counted = {name: gflop(run) for name, run in runs.items()}
        more: dict[str, dict[str, Any]] = {
            "step_mb": {name: step_mb(run, work.device) for name, run in runs.items()},
            "held_mb": {name: held_mb(models[name], kind) for name in sides},
            "gflop": counted,
            "floor_s": {name: n / speed["matmul_gflop_s"] for name, n in counted.items()},
        }
        if arguments.memory and kind == "training step" and not cuda:
            more["process_mb"] = {name: process_mb(arguments, name, stage) for name in sides}
        seconds = interleaved(runs, repeats=arguments.repeats, synchronize=torch.cuda.synchronize if cuda else None)
        rows += compare(case, seconds, against=UPSTREAM, **more)
    about = {"clone": "ATLOP", "documents": arguments.documents, "batch": arguments.batch_size, **speed}
    about |= {"encoder": arguments.size or arguments.encoder.resolve().parent.name, "tf32": arguments.tf32}
    title = "A step of ATLOP" + (", counted and not measured" if arguments.count else "")
    report(title, rows, arguments.json, **about, longest=arguments.longest)


if __name__ == "__main__":
    try:
        main()
    except SegDREError as error:
        sys.exit(f"error: {error}")
