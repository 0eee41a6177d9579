"""``segdre demo``: the whole method on a generated corpus, with a tiny encoder trained from scratch, on a CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from segdre_plugin.data.documents import load_documents
from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.data.progress import say
from segdre_plugin.data.synthetic.corpus import rel2id, write_corpus
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.demo_example import after, before, choose_example
from segdre_plugin.seg.launch import run_reference
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.training_run import TrainingRun
from segdre_plugin.stages.config import STAGES

# A step of a stage beside one of the base, and all of a run beside its training: for the estimate alone.
STEP_COST = {"base": 1.0, "identify": 1.0, "dense": 0.8, "sparse": 1.2}
READING = 1.25
WARM_UP, MEASURED = 2, 12  # steps that are not timed, and those after which the estimate is printed


def demo(folder: Path, *, train: int, dev: int, test: int, epochs: int, seed: int, options: Sequence[str] = ()) -> None:
    """Generate a corpus, show a document, train all stages, fuse them, print the results, and show the document again.

    The folder gets ``corpus/`` and everything that a ``--seg`` run leaves. The base is trained for ``epochs``,
    identify for a quarter, dense and sparse for half of them, from the base: there is no pretrained encoder from which
    they could start. ``options`` are further ones of ``--seg``.

    Raises:
        SegDREError: if a size makes no sense, an option is wrong, or the folder holds another demo.
    """
    for name, value, least in (
        ("train", train, 1),
        ("dev", dev, 1),
        ("test", test, 1),
        ("epochs", epochs, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise SegDREError(f"--{name} is {value}", f"pass {least} or more")
    corpus = folder / "corpus"
    own = {
        "--data_dir": corpus,
        "--num_class": len(rel2id()),
        "--num_train_epochs": epochs,
        "--seed": seed,
        "--seg-dir": folder,
        "--seg-start": "base",
        "--seg-identify-epochs": max(1, epochs // 4),
        "--seg-dense-epochs": max(1, epochs // 2),
        "--seg-sparse-epochs": max(1, epochs // 2),
    }
    arguments = ["--seg", *(str(part) for pair in own.items() for part in pair), *options]
    parse(arguments)  # what is wrong with the options is said before anything is written
    prepare_corpus(corpus, {"train": train, "dev": dev, "test": test, "seed": seed})
    documents = load_documents(corpus / "test.json")
    example = choose_example(documents)
    print(f"{train} train, {dev} dev and {test} test documents, generated from seed {seed}: {corpus}")
    print(f'\nbefore: the test document "{documents[example]["title"]}"\n{before(documents[example])}\n', flush=True)
    with _one_thread():
        run_reference(arguments, DemoRun)
    print(f'\nafter: the test document "{documents[example]["title"]}"\n{before(documents[example])}')
    print(after(RunFolder(folder), example))


class DemoRun(TrainingRun):
    """A run that says after its first steps how long all of it will take."""

    def loader(self, stage: str) -> Any:
        """Return the class of a stage's data loaders; those of the base measure the first steps."""
        plain, run = super().loader(stage), self
        if stage != STAGES[0]:
            return plain

        class Loader(plain):  # type: ignore[valid-type, misc]
            said = False

            def __iter__(self) -> Iterator[Any]:
                start = 0.0
                for k, batch in enumerate(super().__iter__()):
                    if k == WARM_UP:
                        start = time.perf_counter()
                    if k == WARM_UP + MEASURED and not Loader.said:
                        Loader.said = True
                        step = (time.perf_counter() - start) / MEASURED
                        say(run.estimate(step, len(self)))
                    yield batch

        return Loader

    def estimate(self, step: float, steps: int) -> str:
        """Say how long the run will take, of the seconds that a step of the base took and the steps of an epoch."""
        epochs = {stage: self.options.epochs(stage) or self.args.num_train_epochs for stage in STAGES}
        seconds = READING * step * steps * sum(STEP_COST[stage] * epochs[stage] for stage in STAGES)
        span = f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
        return f"all four stages will take about {span} on this machine ({1000 * step:.0f} ms a step)"


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: more gain nothing with so small a model, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare_corpus(corpus: Path, sizes: dict[str, int]) -> None:
    """Write the embedded corpus of the ``sizes`` of train, dev and test and the seed, unless it already exists.

    Raises:
        SegDREError: if there is another one.
    """
    mark = corpus / "sizes.json"
    if not mark.exists():
        write_corpus(corpus, train=sizes["train"], dev=sizes["dev"], test=sizes["test"], seed=sizes["seed"])
        write_json(mark, sizes)
    found = read_json(mark, "corpus")
    if found != sizes:
        raise SegDREError(
            f"{corpus} was made with other settings: {_words(found)} there, {_words(sizes)} now",
            "use the same settings, or another folder",
        )


def _words(sizes: dict[str, int]) -> str:
    return " ".join(f"--{name} {value}" for name, value in sizes.items())
