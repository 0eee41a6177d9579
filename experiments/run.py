"""Train what plan.py lists, then measure; what is finished is skipped, so it can be stopped at any time.

python experiments/run.py OUT --data DIR --encoder DIR --jobs 2      # train all runs, then all probes and studies
python experiments/run.py OUT --data DIR --encoder DIR --studies     # only the studies whose runs are finished
python experiments/run.py OUT --data DIR --encoder DIR --plan converged --jobs 3 --archive all.tar.gz    # on a GPU

DIR of --data holds train.json (or train_annotated.json), dev.json, test.json and rel_info.json. Each run takes one
thread (--threads) of the processor, or the GPU. The JSON of each study goes to experiments/raw/, from which tables.py
makes the tables of docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

from documents import FILES, fewest, find
from plan import PLANS, RAW, SMALL, Backbone, Job, Plan, Study

from segdre_plugin.analysis.study.runs import Runs
from segdre_plugin.data.documents import load_documents
from segdre_plugin.data.files import fingerprint, write, write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.launch import messages

RETRY = 5.0  # seconds between looks for a run whose turn it is


class Experiments:
    """All runs and studies.

    Args:
        out: the folder of everything that is trained.
        data: the documents.
        encoder: folder or name of the encoder.
        raw: the folder of raw results.
        plan: what there is to do.
    """

    def __init__(self, out: Path, data: Path, encoder: str, raw: Path = RAW, plan: Plan = SMALL) -> None:
        self.out, self.raw, self.plan = out.resolve(), raw, plan
        self.encoder = str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder
        self.data = self.out / "data"
        sources = {target: find(data, target) for target in FILES}
        few = {target: fewest(sources[target], size) for target, size in zip(FILES, plan.sizes or (), strict=False)}
        self.data.mkdir(parents=True, exist_ok=True)
        for target, found in sources.items():
            own = self.data / target
            if own.exists():
                same = load_documents(own) == few[target] if target in few else fingerprint(own) == fingerprint(found)
                if not same:
                    raise SegDREError(f"{own} has been made from other documents than {found}", "take another OUT")
            elif target in few:
                write_json(own, few[target])
            else:
                shutil.copyfile(found, own)

    def folder(self, backbone: str, recipe: str) -> Path:
        """Return the folder of the studies of a recipe."""
        return self.out / backbone / recipe

    def arguments(self, backbone: str, recipe: str) -> list[str]:
        """Return the command line of a backbone's train script."""
        where = ["--data_dir", str(self.data), "--model_name_or_path", self.encoder]
        plan = self.plan
        return [*where, *plan.common, *plan.backbones[backbone].arguments, *plan.recipes[recipe]]

    def runs(self, backbone: str, recipe: str) -> Runs:
        """Return the runs of a recipe; those of the backbone's other recipes lend their stages."""
        others = tuple(self.folder(backbone, other) for other in self.plan.recipes if other != recipe)
        arguments = tuple(self.arguments(backbone, recipe))
        script = Path(self.plan.backbones[backbone].script)
        return Runs(self.folder(backbone, recipe), script, arguments, {}, others)

    def do_jobs(
        self,
        n_workers: int,
        threads: int,
        train: Callable[[Job, int, str | None], int] | None = None,
        retry: float = RETRY,
        devices: Sequence[str] = (),
        archive: Path | None = None,
    ) -> None:
        """Train the runs of the plan, in its order, several at a time.

        Args:
            n_workers: runs at a time.
            threads: of each run.
            train: job, threads, GPU -> exit status; None starts a process.
            devices: GPUs, as CUDA_VISIBLE_DEVICES names them; runs at a time take them in turn.
            archive: written again after every run, see :meth:`collect`; None writes none.
            retry: seconds between looks for a run whose turn it is.
        """
        train = train or self.train
        waiting = list(self.plan.jobs)
        lock = threading.Lock()
        active: set[Job] = set()

        def take() -> Job | None:
            """Take the next job whose stages nobody else is training."""
            with lock:
                for job in waiting:
                    if not any((job.backbone, job.seed) == (a.backbone, a.seed) for a in active):
                        waiting.remove(job)
                        active.add(job)
                        return job
            return None

        def work(device: str | None) -> None:
            while waiting:
                job = take()
                if job is None:
                    threading.Event().wait(retry)
                    continue
                status = train(job, threads, device)
                print(f"{job}: " + (f"failed, see its log (exit status {status})" if status else "done"), flush=True)
                with lock:
                    active.remove(job)
                    if archive:
                        self.collect(archive)

        own = [devices[k % len(devices)] if devices else None for k in range(n_workers)]
        workers = [threading.Thread(target=work, args=[device]) for device in own]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    def train(self, job: Job, threads: int, device: str | None = None) -> int:
        """Train a run in a process of its own, in the clone's folder."""
        names = [job.backbone, job.recipe, job.run, str(job.seed)]
        return self.start(self.plan.command, job.backbone, threads, "--one", *names, device=device)

    def start(
        self, script: Sequence[str], backbone: str, threads: int, *options: str, device: str | None = None
    ) -> int:
        """Run a script of this folder (and what stands before the places) in the clone; return its exit status."""
        name, *before = script
        ours = [str(self.out), "--encoder", self.encoder, "--data", str(self.data)]
        command = [sys.executable, str(Path(__file__).resolve().with_name(name)), *before, *ours, *options]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        environment |= {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
        return subprocess.run(command, cwd=self.clone(backbone), env=environment, check=False).returncode

    def collect(self, archive: Path) -> None:
        """Write all that the runs have found so far, without their models, as one compressed tar file."""

        def pack(file: Any) -> None:
            with tarfile.open(fileobj=file, mode="w:gz") as tar:
                for pattern in ("**/*.json", "**/*.log", "**/margins_*.npz"):
                    for path in sorted(self.out.glob(pattern)):
                        if self.data not in path.parents:
                            tar.add(path, path.relative_to(self.out))

        write(archive, pack)

    def do_probes(self, threads: int) -> None:
        """Run the plan's scripts beside the runs ``full`` that are finished."""
        for probe in self.plan.probes:
            seeds = self._finished(probe.backbone, probe.recipe, probe.seeds)
            if not seeds:
                print(f"{probe}: no finished run", flush=True)
                continue
            where = ["--backbone", probe.backbone, "--recipe", probe.recipe, "--seeds", *map(str, seeds)]
            status = self.start([probe.script], probe.backbone, threads, *where, *probe.options)
            print(f"{probe}: " + (f"failed (exit status {status})" if status else "done"), flush=True)

    def _finished(self, backbone: str, recipe: str, seeds: Iterable[int]) -> list[int]:
        """Return the seeds whose run ``full`` is finished."""
        runs = self.runs(backbone, recipe)
        return [seed for seed in seeds if (runs.path("full", seed) / "metrics.json").is_file()]

    def do_one(self, job: Job) -> None:
        """Train a run in this process's folder, which is the clone."""
        runs = self.runs(job.backbone, job.recipe)
        if not runs.is_finished(job.run, job.seed):
            runs.train(job.run, job.seed)

    def do_studies(self, log: TextIO = sys.stderr) -> None:
        """Make the studies whose runs ``full`` are finished, and keep what they say."""
        for study in self.plan.studies:
            seeds = self._finished(study.backbone, study.recipe, study.seeds)
            if not seeds:
                print(f"{study}: no finished run", file=log)
                continue
            self._study(study, seeds)
        for backbone, recipe in dict.fromkeys((job.backbone, job.recipe) for job in self.plan.jobs):
            if self.plan.backbones[backbone].has_isf:
                self._isf(backbone, recipe)

    def _isf(self, backbone: str, recipe: str) -> None:
        """Evaluate finished runs with inference-stage fusion: tau is tuned on dev, then test takes it."""
        runs, script = self.runs(backbone, recipe), self.plan.backbones[backbone].script
        seeds = dict.fromkeys(job.seed for job in self.plan.jobs)
        found: dict[str, dict[str, Any]] = {}
        for seed in self._finished(backbone, recipe, seeds):
            run = runs.path("full", seed)
            for split in ("dev", "test"):
                path = run / "eval" / f"{split}_isf" / "metrics.json"
                if not path.is_file():
                    command = ["segdre", "run", script, "--", "--data_dir", str(self.data), "--eval_mode", "fushion"]
                    command += ["--test_file", f"{split}.json", "--seg", "--seg-dir", str(run)]
                    subprocess.run(command, cwd=self.clone(backbone), check=True)
                found.setdefault(str(seed), {})[split] = json.loads(path.read_text(encoding="utf-8"))[split]
        if found:
            self.keep(backbone, recipe, "isf.json", json.dumps(found, indent=1))

    def keep(self, backbone: str, recipe: str, name: str, text: str) -> None:
        """Keep a raw result, without the places of this machine."""
        for place, word in ((self.data, "DATA"), (self.out, "OUT"), (self.encoder, "ENCODER")):
            text = text.replace(str(place), word)
        target = self.raw / backbone / recipe
        target.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text + "\n", encoding="utf-8")

    def keep_study(self, backbone: str, recipe: str, name: str) -> None:
        """Keep the JSON that a study wrote, if it did."""
        made = self.folder(backbone, recipe) / f"{name}.json"
        if made.is_file():
            self.keep(backbone, recipe, made.name, made.read_text(encoding="utf-8").rstrip())

    def _study(self, study: Study, seeds: list[int]) -> None:
        folder = self.folder(study.backbone, study.recipe)
        command = ["segdre", "study", study.name, str(folder), "--seeds", *map(str, seeds)]
        command += ["--no-training", *["--partners", "next"] * (len(seeds) > 1)]
        script = self.plan.backbones[study.backbone].script
        command += ["--", script, *self.arguments(study.backbone, study.recipe)]
        subprocess.run(command, cwd=self.clone(study.backbone), check=False)
        self.keep_study(study.backbone, study.recipe, study.name)

    def clone(self, backbone: str) -> Path:
        """Return where a backbone's clone is."""
        return clone(self.plan.backbones[backbone])


def clone(spec: Backbone) -> Path:
    """Return where a backbone's clone is."""
    path = Path(os.environ.get(spec.variable) or Path.home() / ".cache" / "segdre" / spec.clone)
    if not (path / spec.script).is_file():
        raise SegDREError(f"no clone of {spec.title} at {path}", f"clone it there, or set {spec.variable}")
    return path


def read_job(words: Sequence[str]) -> Job:
    """Return the job of ``--one BACKBONE RECIPE RUN SEED``."""
    backbone, recipe, run, seed = words
    return Job(backbone, recipe, run, int(seed))


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add what :class:`Experiments` takes."""
    parser.add_argument("out", type=Path, help="folder of everything that is trained")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", required=True)


def add_work(parser: argparse.ArgumentParser) -> None:
    """Add what :func:`work` takes."""
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (1)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (1)")
    parser.add_argument("--devices", nargs="+", default=[], help="GPUs that runs at a time take in turn: 0 1 ...")
    parser.add_argument("--studies", action="store_true", help="train nothing, make the studies of what is finished")
    parser.add_argument("--archive", type=Path, help="a tar.gz of all that was found, written again after every run")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)


def work(experiments: Experiments, options: argparse.Namespace) -> None:
    """Train and measure what the options ask for."""
    if not options.studies:
        experiments.do_jobs(options.jobs, options.threads, devices=options.devices, archive=options.archive)
        experiments.do_probes(options.threads)
    experiments.do_studies()
    if options.archive:
        experiments.collect(options.archive)


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_places(parser)
    add_work(parser)
    parser.add_argument("--plan", choices=PLANS, default="small", help="what is trained (%(default)s)")
    options = parser.parse_args()
    with messages():
        experiments = Experiments(options.out, options.data, options.encoder, plan=PLANS[options.plan])
        if options.one:
            experiments.do_one(read_job(options.one))
        else:
            work(experiments, options)


if __name__ == "__main__":
    main()
