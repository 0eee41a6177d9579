"""What is measured, as data: backbones, recipes, seeds, and the studies that read the finished runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RAW = Path(__file__).resolve().parent / "raw"  # BACKBONE/RECIPE/STUDY.json
SEEDS = (66, 67, 68)

COMMON = (
    *("--train_file", "train_annotated.json", "--dev_file", "dev.json", "--test_file", "test.json"),
    *("--transformer_type", "bert", "--num_class", "97", "--num_labels", "4"),
    *("--train_batch_size", "4", "--test_batch_size", "8"),
    *("--max_grad_norm", "1.0", "--warmup_ratio", "0.06", "--num_train_epochs", "5"),
    *("--seg-new-layer-lr", "1e-3", "--seg-grid", "redocred", "--seg-identify-epochs", "2"),
    "--seg-bf16",
)


@dataclass(frozen=True)
class Backbone:
    """A clone.

    Attributes:
        title: its name in tables.
        variable: the environment variable that says where the clone is, as for the tests.
        clone: its folder in ~/.cache/segdre otherwise.
        script: its train script.
        arguments: of the script, besides COMMON, data and encoder.
        has_isf: whether the script has inference-stage fusion.
    """

    title: str
    variable: str
    clone: str
    script: str
    arguments: tuple[str, ...]
    has_isf: bool = False


BACKBONES = {
    "atlop": Backbone(
        "ATLOP", "SEGDRE_ATLOP", "ATLOP", "train.py", ("--learning_rate", "5e-5", "--gradient_accumulation_steps", "1")
    ),
    "dreeam": Backbone(
        "DREEAM",
        "SEGDRE_DREEAM",
        "dreeam",
        "run.py",
        ("--do_train", "--lr_transformer", "5e-5", "--evi_lambda", "0.1"),
        True,
    ),
}

_SHORT = ("--seg-dense-epochs", "2", "--seg-sparse-epochs", "2")
RECIPES = {  # what differs; all but long share base and identify
    "paper": (),
    "from-base": ("--seg-start", "base", *_SHORT),
    "averaged": ("--seg-start", "base", *_SHORT, "--seg-fusion", "average"),
    "linked": ("--seg-start", "base", *_SHORT, "--seg-fusion", "average", "--seg-link"),
    "long": ("--num_train_epochs", "15", "--seg-start", "base", *_SHORT, "--seg-fusion", "average"),
}


@dataclass(frozen=True)
class Study:
    """A study of ``segdre study``.

    Attributes:
        backbone: which one.
        recipe: which one.
        name: of the study.
        seeds: which ones.
    """

    backbone: str
    recipe: str
    name: str
    seeds: tuple[int, ...] = SEEDS


STUDIES = (
    *(
        Study("atlop", "averaged", name)
        for name in ("seeds", "diagnosis", "injection", "ablations", "selection", "alpha")
    ),
    Study("atlop", "from-base", "seeds"),
    *(Study("atlop", "paper", name) for name in ("seeds", "diagnosis", "injection")),
    *(Study("atlop", "linked", name) for name in ("seeds", "diagnosis")),
    *(Study("dreeam", "averaged", name) for name in ("seeds", "diagnosis")),
    Study("dreeam", "from-base", "seeds"),
    *(Study(backbone, "long", name, (66,)) for backbone in BACKBONES for name in ("seeds", "diagnosis")),
)


@dataclass(frozen=True)
class Job:
    """A run to be trained; jobs are taken from the list below in its order.

    Attributes:
        backbone: which one.
        recipe: which one.
        run: its name in ``segdre study``.
        seed: the study's seed.
    """

    backbone: str
    recipe: str
    run: str
    seed: int


# The runs "full" of recipe from-base train nothing: all their stages are those of averaged.
_MAIN = tuple(
    Job(backbone, recipe, "full", seed)
    for backbone in BACKBONES
    for seed in SEEDS
    for recipe in ("averaged", "from-base")
)
JOBS = (
    *_MAIN,
    *(Job(backbone, "long", "full", 66) for backbone in BACKBONES),
    *(Job("atlop", "averaged", "plain", seed) for seed in SEEDS),
    Job("atlop", "linked", "full", 66),
    *(Job("atlop", "averaged", run, seed) for seed in SEEDS for run in ("random", "linear")),
    *(Job("atlop", "paper", "full", seed) for seed in SEEDS),
    *(Job("atlop", "linked", "full", seed) for seed in SEEDS[1:]),
    *(Job("atlop", "paper", "plain", seed) for seed in SEEDS),
)
