"""``segdre study``: train the runs of a study, let their models read, score the rows, write tables and figures."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from segdre_plugin.analysis.study.runner import StudyRunner
from segdre_plugin.analysis.study.runs import OURS, PARTNER_OFFSET, RUNS, Runs
from segdre_plugin.analysis.study.studies import STUDIES
from segdre_plugin.analysis.study.write_results import find_provenance, write_results
from segdre_plugin.backbones.clones.recognition import choose_adapter
from segdre_plugin.data.folders import locked, remove_litter
from segdre_plugin.data.synthetic.corpus import rel2id
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.seg.arguments import LARGEST_SEED
from segdre_plugin.seg.demo import prepare_corpus
from segdre_plugin.seg.options import parse

SIZES = {"train": 1000, "dev": 80, "test": 80, "epochs": 4}  # of the embedded corpus
CORPUS = "corpus"
CORPUS_SEED = 0


def run(
    name: str,
    folder: Path,
    seeds: Sequence[int],
    behind: Sequence[str],
    sizes: Mapping[str, int | None],
    partners: str = "own",
    others: Sequence[Path] = (),
    trains: bool = True,
    adapter: str | None = None,
) -> None:
    """Run a study.

    Args:
        name: which one.
        folder: where its runs and results go; what is finished there is skipped.
        seeds: one row each.
        behind: a backbone's train script with its arguments; without a script, arguments of the reference model's.
        sizes: of the embedded corpus (train, dev, test, epochs); None for the default.
        partners: second models of naive ensembles: each seed its ``own``, or that of the ``next`` seed.
        others: folders of other studies, whose stages with the same settings are taken.
        trains: whether runs that are not there are trained; their rows fail otherwise.
        adapter: of the train script's backbone, a name or a Python file; None recognises the script.

    Raises:
        SegDREError: if an argument is wrong, or rows failed; the results of the others are written then.
        KeyboardInterrupt: at Ctrl-C, with how to go on.
    """
    has_script = bool(behind) and not behind[0].startswith("-")
    script, arguments = (Path(behind[0]), list(behind[1:])) if has_script else (None, list(behind))
    if partners == "next" and len(seeds) < 2:
        raise SegDREError("--partners next with one seed", "pass more --seeds, or leave it out")
    missing = [other for other in others if not other.is_dir()]
    if missing:
        raise SegDREError(f"--reuse: no folder {missing[0]}", "pass the folder of another study")
    _check(name, folder, seeds, script, arguments, sizes, adapter)
    folder.mkdir(parents=True, exist_ok=True)
    command = ["segdre", "study", name, str(folder), "--seeds", *map(str, seeds)]
    with locked(folder / ".lock", f"{folder}: another study is using it", "wait for it, or take another folder"):
        for place in (folder, folder / RUNS):
            remove_litter(place)
        # the command line that the page shows, with defaults spelled out
        if script is None:
            chosen = {key: sizes.get(key) or default for key, default in SIZES.items()}
            command += [part for key, value in chosen.items() for part in (f"--{key}", str(value))]
            arguments = [*_reference_arguments(folder / CORPUS, chosen), *arguments]
        command += ["--partners", partners] * (partners != "own")
        command += [part for other in others for part in ("--reuse", str(other))]
        command += ["--no-training"] * (not trains)
        command += ["--adapter", adapter] if adapter else []
        command += ["--", *behind] * bool(behind)
        # the second base model of each seed's naive ensembles
        seconds = [*seeds[1:], seeds[0]] if partners == "next" else [seed + PARTNER_OFFSET for seed in seeds]
        pairs = dict(zip(seeds, seconds, strict=True))
        runs = Runs(folder, script, tuple(arguments), pairs, tuple(others), adapter)
        runner = StudyRunner(STUDIES[name], runs, seeds, trains)
        try:
            with _orderly_end():
                results = runner.run()
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on; what is finished is skipped") from None
        provenance = find_provenance(shlex.join(command), seeds, runner.any_finished())
        print("\n" + write_results(folder, name, results, provenance))
    print(f"\nwritten: {folder / name}.md, .csv, .json")
    # rows often fail for one reason: list each reason once
    problems: dict[str, str] = {}
    for row, part in results.errors.items():
        for message in part.values():
            problems.setdefault(message, row)
    n_failed = sum(map(len, results.errors.values()))
    raise_all(
        [f"{row}: {message}" for message, row in problems.items()],
        f"{n_failed} of {len(results.study.rows) * len(seeds)} rows failed (one of each kind)",
        "fix that and run the same command again; what is finished is skipped",
    )


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM end a study as Ctrl-C does: with the process that it waits for, which would go on otherwise."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check(
    name: str,
    folder: Path,
    seeds: Sequence[int],
    script: Path | None,
    arguments: list[str],
    sizes: Mapping[str, int | None],
    adapter: str | None,
) -> None:
    """Refuse what cannot work, before anything is made."""
    if len(set(seeds)) < len(seeds):
        raise SegDREError(f"--seeds {' '.join(map(str, seeds))}: a seed is listed twice", "pass different seeds")
    largest = LARGEST_SEED - PARTNER_OFFSET
    for seed in seeds:
        if not 0 <= seed <= largest:
            raise SegDREError(f"--seeds: expected 0 to {largest}, got {seed}", "pass other seeds")
    given = [key for key, value in sizes.items() if value is not None]
    if script is not None:
        if not script.is_file():
            raise SegDREError(f"{script} not found", "pass the train script of a clone behind --")
        choose_adapter(script, adapter).require_script()
        if given:
            raise SegDREError(f"--{given[0]} is a size of the embedded corpus", "leave it out with a script")
    elif adapter is not None:
        raise SegDREError(f"--adapter {adapter} without a script", "pass the train script of a clone behind --")
    low = [key for key in given if sizes[key] < 1]  # type: ignore[operator]
    if low:
        raise SegDREError(f"--{low[0]} is {sizes[low[0]]}", "pass 1 or more")
    set_here = {*OURS, "--seg-salient"} if name == "selection" else OURS
    ours = [part.split("=")[0] for part in arguments if part.split("=")[0] in set_here]
    if ours:
        raise SegDREError(f"{ours[0]} is set by the study", "leave it out; --seeds is an option of segdre study")
    parse(["--seg", *arguments])
    if folder.exists() and not folder.is_dir():
        raise SegDREError(f"{folder} is not a folder", "pass another one")


def _reference_arguments(corpus: Path, sizes: Mapping[str, int]) -> list[str]:
    """Write the embedded corpus, and return the reference model's command line for it."""
    epochs = sizes["epochs"]
    prepare_corpus(corpus, {key: sizes[key] for key in ("train", "dev", "test")} | {"seed": CORPUS_SEED})
    given = {
        "--data_dir": corpus,
        "--num_class": len(rel2id()),
        "--num_train_epochs": epochs,
        "--seg-identify-epochs": max(1, epochs // 2),
    }
    return [str(part) for pair in given.items() for part in pair]
