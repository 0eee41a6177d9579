"""The paper's tables on your data: upstream's own hyper-parameters, and the paper's number beside each of ours.

python experiments/paper.py table4 OUT --data docred --encoder bert-base-cased --estimate       # hours and disk
python experiments/paper.py table4 OUT --data docred --encoder bert-base-cased --devices 0 1    # train, then measure
python experiments/paper.py table4 OUT --data docred --encoder bert-base-cased --dry-run        # does it work here?

Tables 2, 3, 4, 5 and 7 (printed.py has them). DIR of --data holds DocRED (tables 2, 4 and 5, and 7 with BERT-base) or
Re-DocRED (table 3, and 7 with RoBERTa-large), and rel_info.json. What is finished is skipped, stage by stage: stop it
whenever you like. --dry-run takes sixteen documents, two seeds, one epoch and a tiny BERT in the encoder's place.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from documents import FILES, find
from plan import BACKBONES, Job, Plan, Study
from printed import COMMON, ISF_TITLES, KINDS, NAMES, SEEDS, TABLES, UPSTREAM, Numbers, PaperTable
from probe import train
from run import Experiments, add_places, add_work, read_job, work
from tables import read

from segdre_plugin.analysis.study.runs import PARTNER, TRAININGS
from segdre_plugin.analysis.study.studies import STUDIES
from segdre_plugin.analysis.study.tables import Cell
from segdre_plugin.backbones.clones.compat import AutoConfig
from segdre_plugin.backbones.reference.tokenizer import build_encoder, build_tokenizer
from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.data.progress import duration
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.check_run import CheckRun
from segdre_plugin.seg.launch import messages
from segdre_plugin.stages.config import STAGES

DRY_DOCUMENTS, DRY_SEEDS = 16, (66, 67)
DRY = ("--num_train_epochs", "1.0", "--seg-identify-epochs", "1")


def make_plan(name: str, size: str, dry: bool = False) -> Plan:
    """Return what a table of the paper takes: one recipe, and all runs of its study for each of its backbones.

    Args:
        name: of the table.
        size: of the encoder, base or large.
        dry: two seeds and one epoch.

    Raises:
        SegDREError: if the paper has no such table for encoders of this size.
    """
    table, seeds, recipe = TABLES[name], DRY_SEEDS if dry else SEEDS, f"{name}-{size}"
    if size not in table.numbers:
        raise SegDREError(f"{name} has no {NAMES[size]}", f"take {' or '.join(NAMES[s] for s in table.numbers)}")
    specs = {key: replace(BACKBONES[key], arguments=UPSTREAM[key][size]) for key in table.numbers[size]}
    rows = STUDIES[table.study].rows.values()
    runs = dict.fromkeys(run for row in rows for run in row.trainings if run != PARTNER)
    jobs = tuple(Job(backbone, recipe, run, seed) for backbone in specs for seed in seeds for run in runs)
    kind = "bert" if dry else KINDS[size]
    options = (*COMMON, "--transformer_type", kind, "--seg-grid", table.grid[size], *(DRY if dry else ()))
    studies = tuple(Study(backbone, recipe, table.study, seeds) for backbone in specs)
    return Plan(specs, options, {recipe: ()}, jobs, studies, (), ("paper.py", name, *["--dry-run"] * dry))


def size_of(encoder: str) -> str:
    """Return the size of the paper's encoder that one is like: a BERT base, a RoBERTa large.

    Raises:
        SegDREError: if it is neither BERT nor RoBERTa, or cannot be loaded.
    """
    kind = AutoConfig.from_pretrained(encoder).model_type
    size = next((size for size, own in KINDS.items() if own == kind), None)
    if size is None:
        raise SegDREError(f"{encoder}: expected {' or '.join(KINDS.values())}, got {kind}", "take such an encoder")
    return size


def shrink(out: Path, data: Path) -> tuple[Path, str]:
    """Write a few documents of each split and a tiny BERT for a dry run; return their folders."""
    target, encoder = out / "few", out / "tiny"
    target.mkdir(parents=True, exist_ok=True)
    documents: list[Any] = []
    for name in FILES:
        content = read_json(find(data, name), "data")
        if name != "rel_info.json":
            content = content[:DRY_DOCUMENTS]
            documents += content
        write_json(target / name, content)
    if not encoder.is_dir():
        tokenizer = build_tokenizer(documents, list(read_json(target / "rel_info.json", "names").values()))
        build_encoder(len(tokenizer)).save_pretrained(encoder)
        tokenizer.save_pretrained(encoder)
    return target, str(encoder)


class Check(CheckRun):
    """``--seg-check`` that keeps what a run costs in a file."""

    kept: Path
    arguments: list[str]

    def run(self) -> None:
        """Run all stages on a handful of documents."""
        super().run()
        costs = {stage: {"seconds": cost.seconds, "bytes": cost.disk} for stage, cost in self.costs.items()}
        write_json(self.kept, {"arguments": self.arguments, "stages": costs})


def check(experiments: Experiments, backbone: str) -> None:
    """Measure steps at these sizes on this machine, in the clone's folder."""
    Check.kept, Check.arguments = check_file(experiments, backbone), own_arguments(experiments, backbone)
    Check.kept.parent.mkdir(parents=True, exist_ok=True)
    ours = ["--seed", str(SEEDS[0]), "--seg", "--seg-dir", str(Check.kept.with_suffix(""))]
    train(Check, Path(experiments.plan.backbones[backbone].script), [*Check.arguments, *ours])


def own_arguments(experiments: Experiments, backbone: str) -> list[str]:
    """Return the arguments of a backbone's only recipe."""
    (recipe,) = experiments.plan.recipes
    return experiments.arguments(backbone, recipe)


def check_file(experiments: Experiments, backbone: str) -> Path:
    """Return where the costs of a backbone's stages are."""
    (recipe,) = experiments.plan.recipes
    return experiments.folder(backbone, recipe) / "check.json"


def stage_costs(experiments: Experiments, backbone: str, threads: int) -> dict[str, Any]:
    """Return stage -> seconds and bytes, measured before or now.

    Raises:
        SegDREError: if that failed; why has been printed.
    """
    file, arguments = check_file(experiments, backbone), own_arguments(experiments, backbone)
    if not (file.is_file() and read_json(file, "costs")["arguments"] == arguments):
        status = experiments.start(experiments.plan.command, backbone, threads, "--check", backbone)
        if status:
            raise SegDREError(f"{BACKBONES[backbone].title}: --seg-check failed (exit status {status})", "see above")
    found: dict[str, Any] = read_json(file, "costs")["stages"]
    return found


def estimate(experiments: Experiments, threads: int, at_once: int) -> str:
    """Return what all runs take, in time and disk, from measured steps; those that are finished count, too."""
    seconds = disk = 0.0
    for backbone in experiments.plan.backbones:
        costs = stage_costs(experiments, backbone, threads)
        for job in (job for job in experiments.plan.jobs if job.backbone == backbone):
            training = TRAININGS[job.run]
            last = len(STAGES) if training.stage == "all" else STAGES.index(training.stage) + 1
            own = [costs[stage] for stage in STAGES[:last] if stage not in training.shares]
            seconds += sum(cost["seconds"] for cost in own)
            disk += sum(cost["bytes"] for cost in own)
    together = f", {duration(seconds / at_once)} with a device for each of {at_once}" * (at_once > 1)
    size = f"{disk / 1e9:.1f} GB in {experiments.out}"
    runs = f"{len(experiments.plan.jobs)} runs take about {duration(seconds)}{together}, and {size}"
    return f"{runs}; what a study reads again is not counted"


def result(experiments: Experiments, name: str, size: str) -> dict[str, Any]:
    """Return a table: backbone -> line -> column -> our values, one a seed, and the paper's number."""
    table, (recipe,) = TABLES[name], experiments.plan.recipes
    found: dict[str, Any] = {}
    for backbone, printed in table.numbers[size].items():
        folder = experiments.raw / backbone / recipe
        if not (folder / f"{table.study}.json").is_file():
            continue
        results, _ = read(folder, table.study)
        columns = [column for title in table.columns for column in results.study.columns if column.title == title]
        lines = {}
        for line in results.study.lines:
            values = [results.values(line, column) for column in columns]
            lines[line.title] = side_by_side(table, values, printed.get(line.title))
        if table.isf and experiments.plan.backbones[backbone].has_isf:
            runs = read_json(folder / "isf.json", "inference-stage fusion").values()
            for row, title in ISF_TITLES.items():
                values = [[100 * run[c.split][row][c.metric] for run in runs if run.get(c.split)] for c in columns]
                lines[title] = side_by_side(table, values, table.isf.get(row))
        found[backbone] = lines
    return found


def side_by_side(table: PaperTable, ours: list[list[float]], paper: Numbers | None) -> dict[str, Any]:
    """Return column -> our values and the paper's number."""
    theirs = paper or (None,) * len(table.columns)
    return {c: {"ours": v, "paper": p} for c, v, p in zip(table.columns, ours, theirs, strict=True)}


def page(name: str, size: str, found: Mapping[str, Any], dry: bool) -> str:
    """Return the tables as Markdown."""
    parts = [f"# {name.replace('table', 'Table ')} of the paper, {NAMES[size]}"]
    parts += ["A dry run: its numbers mean nothing."] * dry
    for backbone, lines in found.items():
        columns = TABLES[name].columns
        rows = [[f"{BACKBONES[backbone].title} (%)", *(part for column in columns for part in (column, "paper"))]]
        rows += [["---", *["---:"] * (2 * len(columns))]]
        for title, cells in lines.items():
            pairs = ((str(Cell(c["ours"])), "-" if c["paper"] is None else f"{c['paper']:.2f}") for c in cells.values())
            rows.append([title, *(part for pair in pairs for part in pair)])
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    add_places(parser)
    add_work(parser)
    parser.add_argument("--estimate", action="store_true", help="only say how long it takes")
    parser.add_argument("--dry-run", action="store_true", help="sixteen documents, two seeds, one epoch, a tiny BERT")
    parser.add_argument("--check", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with messages():
        size = min(TABLES[options.table].numbers) if options.dry_run else size_of(options.encoder)
        plan = make_plan(options.table, size, options.dry_run)
        out, data, encoder = options.out.resolve(), options.data, options.encoder
        if options.dry_run and not (options.one or options.check):  # those are processes of ours, which get its places
            out /= "dry"
            data, encoder = shrink(out, data)
        experiments = Experiments(out, data, encoder, out / "raw", plan)
        if options.one:
            experiments.do_one(read_job(options.one))
        elif options.check:
            check(experiments, options.check)
        else:
            options.jobs = max(options.jobs, len(options.devices))
            print(f"segdre: {estimate(experiments, options.threads, options.jobs)}", flush=True)
            if options.estimate:
                return
            work(experiments, options)
            found = result(experiments, options.table, size)
            write_json(experiments.out / f"{options.table}.json", {"encoder": options.encoder, "lines": found})
            text = page(options.table, size, found, options.dry_run)
            (experiments.out / f"{options.table}.md").write_text(text, encoding="utf-8")
            print(text)


if __name__ == "__main__":
    sys.exit(main())
