"""``--seg-check``: every stage on a handful of documents, and what the whole run will take."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from segdre_plugin.backbones.workers import ALONE, Workers
from segdre_plugin.data.progress import duration
from segdre_plugin.data.splits import Split
from segdre_plugin.seg.options import Options
from segdre_plugin.seg.stage_training import StageTraining
from segdre_plugin.seg.training_run import TrainingRun
from segdre_plugin.stages.config import NEEDS, STAGES
from segdre_plugin.stages.stage import ChainResult
from segdre_plugin.vocabulary import Document


@dataclass
class Clock:
    """What a stage took.

    Attributes:
        steps: seconds of each training step, dev not counted.
        single: seconds of the last one with one thread; 0: not measured.
        reading: seconds in which dev and test were read.
        documents: how many documents were read in them.
        kept: share of the train documents that have a pair of the stage.
    """

    steps: list[float] = field(default_factory=list)
    single: float = 0.0
    reading: float = 0.0
    documents: int = 0
    kept: float = 1.0

    @property
    def step(self) -> float:
        """Seconds of a training step."""
        counted = self.steps[1:] or self.steps
        return sum(counted) / len(counted) if counted else 0.0

    @property
    def document(self) -> float:
        """Seconds in which a document is read."""
        return self.reading / self.documents if self.documents else 0.0


@dataclass(frozen=True)
class Cost:
    """What a stage of the whole run takes.

    Attributes:
        training: seconds of its steps.
        looks: seconds in which dev is judged for the choice of the checkpoint.
        reading: seconds in which the best checkpoint reads dev and test.
        disk: bytes.
        after: the stages without which training cannot begin, with ``--seg-parallel``.
        looks_later: whether dev is judged when the stages before are finished, then.
    """

    training: float
    looks: float
    reading: float
    disk: float
    after: tuple[str, ...] = ()
    looks_later: bool = False

    @property
    def seconds(self) -> float:
        """All seconds."""
        return self.training + self.looks + self.reading


def longest_path(costs: Mapping[str, Cost]) -> float:
    """Return the seconds until all stages are finished where each has a device of its own."""
    ends: dict[str, float] = {}
    for stage in STAGES:
        cost = costs[stage]
        trained = max((ends[name] for name in cost.after), default=0.0) + cost.training
        known = max((ends[name] for name in NEEDS[stage]), default=0.0)
        if cost.looks_later:
            ends[stage] = max(trained, known) + cost.looks + cost.reading
        else:
            ends[stage] = max(trained + cost.looks, known) + cost.reading
    return max(ends.values())


class TimedTraining(StageTraining):
    """A stage's training with a clock."""

    clock: Clock

    def _read(self, args: Namespace, model: Any, split: Split, known: str = "") -> ChainResult:
        start = time.perf_counter()
        found = super()._read(args, model, split, known)
        self.clock.reading += time.perf_counter() - start
        self.clock.documents += len(split.documents)
        prepared = self._prepared.get("train")
        if prepared:
            self.clock.kept = len(prepared.features) / len(self.run.splits["train"].documents)
        return found


class CheckRun(TrainingRun):
    """A run of one epoch a stage on some documents of each split, evenly spaced by length, in a temporary folder.

    Where training reads further files by the documents' order (DREEAM's teacher), they are the first ones.

    Attributes:
        batches: of a stage's only epoch; the first, in which libraries warm up, is not counted.
        documents: of dev and of test.
    """

    batches, documents = 3, 6

    def __init__(
        self, names: Any, main: Any, backbone: Any, script: Any, options: Options, workers: Workers = ALONE
    ) -> None:
        self.asked = options
        self.clocks = {stage: Clock() for stage in STAGES}
        self.sizes: dict[str, int] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="segdre-check-")
        quick = replace(options, directory=Path(self._folder.name), stage="all", parallel=False, bundle=None, reuse=())
        super().__init__(names, main, backbone, script, quick, workers)
        self.args.save_path = ""

    def load(self, files: Mapping[str, str], skip_unusable: bool) -> None:
        """Read and check all of the data, and keep a handful of documents."""
        super().load(files, skip_unusable)
        for split in self.splits.values():
            self.sizes[split.name] = len(split.documents)
            train = split.name == "train"
            in_order = train and bool(self.script.inputs(self.args, split.path))
            split.documents = handful(
                split.documents, self.batches * self.args.train_batch_size if train else self.documents, in_order
            )

    def loader(self, stage: str) -> Any:
        """Return the data loaders of a stage, with its clock in them; the base reads a batch again with one thread."""
        clock, plain = self.clocks[stage], super().loader(stage)
        threads = torch.get_num_threads()
        twice = not NEEDS[stage] and threads > 1 and not torch.cuda.is_available()

        class Loader(plain):  # type: ignore[valid-type, misc]
            def __iter__(self) -> Iterator[Any]:
                for batch in super().__iter__():
                    start = time.perf_counter() - clock.reading
                    yield batch
                    clock.steps.append(time.perf_counter() - clock.reading - start)
                if twice:
                    torch.set_num_threads(1)
                    try:
                        start = time.perf_counter() - clock.reading
                        yield batch
                        clock.single = time.perf_counter() - clock.reading - start
                    finally:
                        torch.set_num_threads(threads)

        return Loader

    def training(self, stage: str, *parts: Any, **more: Any) -> StageTraining:
        """Return what trains a stage, with its clock."""
        made = TimedTraining(*parts, **more)
        made.clock = self.clocks[stage]
        return made

    def run_main(self, overrides: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        """Run the script's ``main()`` for one epoch."""
        super().run_main({**overrides, "num_train_epochs": 1}, names)

    def run(self) -> None:
        """Run all stages, print what the whole run will take, and leave nothing behind."""
        try:
            with redirect_stdout(StringIO()):  # scores of a handful of documents
                super().run()
            print(f"segdre: every stage runs on this machine; the whole run will take\n{self.estimate()}")
        finally:
            self._folder.cleanup()

    @property
    def costs(self) -> dict[str, Cost]:
        """Return what each stage of the whole run takes."""
        found = {}
        for stage in STAGES:
            clock = self.clocks[stage]
            epochs = self.asked.epochs(stage) or float(self.args.num_train_epochs)
            steps = int(clock.kept * self.sizes["train"]) // self.args.train_batch_size * int(epochs)
            looks = int(epochs) + _looks(steps, getattr(self.args, "evaluation_steps", -1))
            waits = self._waits(stage)
            found[stage] = Cost(
                training=steps * clock.step if clock.steps else 0.0,
                looks=looks * self.sizes["dev"] * clock.document,
                reading=(self.sizes["dev"] + self.sizes.get("test", 0)) * clock.document,
                disk=self._disk(stage) + (looks * self._checkpoint(stage) if waits else 0),
                after=self._begins_after(stage),
                looks_later=waits,
            )
        return found

    def estimate(self) -> str:
        """Return a table: seconds of each stage of the whole run, memory and disk."""
        lines = [f"{'stage':<10}{'a step':>10}{'a document':>12}{'training':>12}{'reading':>12}"]
        costs = self.costs
        for stage, cost in costs.items():
            clock = self.clocks[stage]
            cells = [f"{clock.step:.3g} s", f"{clock.document:.3g} s"]
            cells += [duration(cost.training), duration(cost.looks + cost.reading)]
            lines.append(f"{stage:<10}{cells[0]:>10}{cells[1]:>12}{cells[2]:>12}{cells[3]:>12}")
        disk, total = sum(cost.disk for cost in costs.values()), sum(cost.seconds for cost in costs.values())
        free = shutil.disk_usage(_existing(self.asked.directory)).free
        room = f"{disk / 1e9:.2f} GB in {self.asked.directory} (free: {free / 1e9:.1f})"
        lines.append(f"all stages: about {duration(total)}, {room}")
        if self.asked.parallel:
            longest = duration(longest_path(costs))
            lines.append(f"side by side: about {longest} with a GPU for each of three stages, on one device more")
        lines.append(f"memory of this process at its peak: {_peak() / 1e9:.2f} GB{_device()}")
        lines += _threads(self.clocks["base"])
        if disk > free:
            lines.append(f"segdre: {self.asked.directory} has too little room for the run")
        return "\n".join(lines)

    def _waits(self, stage: str) -> bool:
        """Return whether all looks at dev are kept until the stages before have finished."""
        made = self._stage(stage)
        return self.asked.parallel and self.asked.select == "predicted" and made.has_own_pairs and made.has_model

    def _checkpoint(self, stage: str) -> int:
        """Return the bytes of a stage's checkpoint."""
        path = self.checkpoint(stage)
        return path.stat().st_size if path.is_file() else 0

    def _disk(self, stage: str) -> float:
        """Return the bytes of a stage's folder after the whole run: what holds scores grows with the documents."""
        share = (self.sizes["dev"] + self.sizes.get("test", 0)) / sum(
            len(split.documents) for split in self.splits.values() if split.name != "train"
        )
        files = [path for path in self.store.folder(stage).rglob("*") if path.is_file()]
        return sum(path.stat().st_size * (share if path.suffix == ".npz" else 1.0) for path in files)


def handful(documents: Sequence[Document], n: int, in_order: bool = False) -> list[Document]:
    """Return ``n`` documents: the first ones, or evenly spaced from the shortest to the longest (in words)."""
    if in_order or len(documents) <= n:
        return list(documents[:n])
    by_length = sorted(range(len(documents)), key=lambda i: sum(map(len, documents[i]["sents"])))
    chosen = {by_length[round(k * (len(documents) - 1) / (n - 1))] for k in range(n)}
    return [documents[i] for i in sorted(chosen)]


def _threads(clock: Clock) -> list[str]:
    """Return a line on what more threads than one give, if that was measured."""
    if not clock.single:
        return []
    line = f"threads: a step of base takes {clock.steps[-1]:.3g} s with {torch.get_num_threads()}, "
    faster = clock.single < 0.9 * clock.steps[-1]
    return [f"{line}{clock.single:.3g} s with one{': set OMP_NUM_THREADS=1, which is faster' if faster else ''}"]


def _looks(steps: int, every: int) -> int:
    return steps // every if every > 0 else 0


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())


def _peak() -> int:
    """Return the most memory that this process had, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _device() -> str:
    peaks = [torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count())]
    return f", of the GPU {max(peaks) / 1e9:.2f} GB" if peaks else ""  # one of them computes
