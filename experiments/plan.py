"""What is measured, as data: backbones, recipes, seeds, the runs, and the studies and scripts that read them.

``SMALL`` is the plan of docs/results.md, ``CONVERGED`` asks the same of models that are trained to the end, on a GPU,
and ``FEW`` does so of documents so few that two cores can train them; paper.py makes the plans of the paper's tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

RAW = Path(__file__).resolve().parent / "raw"  # BACKBONE/RECIPE/STUDY.json
SEEDS = (66, 67, 68)

_SCRIPT = (
    *("--train_file", "train_annotated.json", "--dev_file", "dev.json", "--test_file", "test.json"),
    *("--transformer_type", "bert", "--num_class", "97", "--num_labels", "4"),
    *("--train_batch_size", "4", "--test_batch_size", "8"),
    *("--max_grad_norm", "1.0", "--warmup_ratio", "0.06"),
)
_OURS = ("--seg-new-layer-lr", "1e-3", "--seg-grid", "redocred")
COMMON = (*_SCRIPT, "--num_train_epochs", "5", *_OURS, "--seg-identify-epochs", "2", "--seg-bf16")


@dataclass(frozen=True)
class Backbone:
    """A clone.

    Attributes:
        title: its name in tables.
        variable: the environment variable with the path of the clone, as for the tests.
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

_FROM_BASE = ("--seg-start", "base", "--seg-dense-epochs", "2", "--seg-sparse-epochs", "2")
RECIPES = {  # what differs; all but long share base and identify
    "paper": (),
    "from-base": _FROM_BASE,
    "averaged": (*_FROM_BASE, "--seg-fusion", "average"),
    "linked": (*_FROM_BASE, "--seg-link", "--seg-sparse-epochs", "4"),
    "long": ("--num_train_epochs", "15", *_FROM_BASE),
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


_ALL = ("seeds", "diagnosis", "injection", "ablations", "selection", "alpha")
STUDIES = (
    *(Study("atlop", "from-base", name) for name in _ALL),
    *(Study("dreeam", "from-base", name) for name in ("seeds", "diagnosis")),
    *(Study(backbone, "averaged", "seeds") for backbone in BACKBONES),
    *(Study(backbone, "long", name, (66,)) for backbone in BACKBONES for name in ("seeds", "diagnosis")),
    *(Study("atlop", recipe, name) for recipe in ("linked", "paper") for name in ("seeds", "diagnosis", "injection")),
)


@dataclass(frozen=True)
class Probe:
    """A script of this folder that measures beside finished runs.

    Attributes:
        script: which one.
        backbone: which one.
        recipe: which one.
        seeds: which ones.
        options: of the script.
    """

    script: str
    backbone: str
    recipe: str
    seeds: tuple[int, ...] = SEEDS
    options: tuple[str, ...] = ()


PROBES = (
    Probe("information.py", "atlop", "from-base"),
    *(Probe("longer.py", backbone, "from-base") for backbone in BACKBONES),
    *(Probe("longer.py", backbone, "long", (66,)) for backbone in BACKBONES),
    *(
        Probe("answers.py", "atlop", "from-base", (66,), link + epochs)
        for link in ((), ("--link",))
        for epochs in ((), ("--epochs", "8"))
    ),
    Probe("sparse.py", "atlop", "from-base", (66,)),
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


# The runs "full" of recipe averaged train nothing: all their stages are those of from-base.
JOBS = (
    *(
        Job(backbone, recipe, "full", seed)
        for backbone in BACKBONES
        for seed in SEEDS
        for recipe in ("from-base", "averaged")
    ),
    *(Job(backbone, "long", "full", 66) for backbone in BACKBONES),
    *(Job("atlop", "from-base", "plain", seed) for seed in SEEDS),
    *(Job("atlop", "from-base", run, seed) for seed in SEEDS for run in ("random", "linear")),
    *(Job("atlop", recipe, "full", seed) for recipe in ("linked", "paper") for seed in SEEDS),
    *(Job("atlop", "paper", "plain", seed) for seed in SEEDS),
)


@dataclass(frozen=True)
class Plan:
    """All that run.py trains and measures.

    Attributes:
        backbones: name -> clone.
        common: arguments of every run.
        recipes: name -> arguments in which recipes differ.
        jobs: the runs, in the order in which they are trained.
        studies: which read them.
        probes: which read them, too.
        command: the script of this folder that trains one of the runs, and what it takes besides the places.
        sizes: documents of train, dev and test, those with the fewest entities; None takes all.
    """

    backbones: Mapping[str, Backbone]
    common: tuple[str, ...]
    recipes: Mapping[str, tuple[str, ...]]
    jobs: tuple[Job, ...]
    studies: tuple[Study, ...]
    probes: tuple[Probe, ...] = ()
    command: tuple[str, ...] = ("run.py",)
    sizes: tuple[int, int, int] | None = None


SMALL = Plan(BACKBONES, COMMON, RECIPES, JOBS, STUDIES, PROBES)

_RECIPES = {
    "converged": (),  # dense and sparse from the pretrained encoder, as in the paper
    "converged-from-base": ("--seg-start", "base", "--seg-dense-epochs", "5", "--seg-sparse-epochs", "5"),
}
_RUNS = (("converged", "full"), ("converged", "plain"), ("converged-from-base", "full"))
CONVERGED = Plan(
    {"atlop": BACKBONES["atlop"]},
    (*_SCRIPT, "--num_train_epochs", "30", *_OURS, "--seg-identify-epochs", "10"),
    _RECIPES,
    tuple(Job("atlop", recipe, run, seed) for recipe, run in _RUNS for seed in SEEDS),
    (
        *(Study("atlop", recipe, name) for recipe in _RECIPES for name in ("seeds", "diagnosis")),
        Study("atlop", "converged", "injection"),
    ),
    (Probe("longer.py", "atlop", "converged-from-base"),),
    ("run.py", "--plan", "converged"),
)

_FEW_SEEDS = (*SEEDS, 69, 70)
_FEW = {
    "few-from-base": ("--seg-start", "base", "--seg-dense-epochs", "3", "--seg-sparse-epochs", "3"),
    "few": (),
}
FEW = Plan(
    {"atlop": BACKBONES["atlop"]},
    (*_SCRIPT, "--train_batch_size", "1", "--num_train_epochs", "15", *_OURS, "--seg-identify-epochs", "3"),
    _FEW,
    (
        *(Job("atlop", "few-from-base", "full", seed) for seed in _FEW_SEEDS),
        *(Job("atlop", "few", run, seed) for run in ("full", "plain") for seed in _FEW_SEEDS),
    ),
    (
        *(Study("atlop", "few-from-base", name, _FEW_SEEDS) for name in ("seeds", "diagnosis", "selection")),
        *(Study("atlop", "few", name, _FEW_SEEDS) for name in ("seeds", "diagnosis", "injection")),
    ),
    (Probe("longer.py", "atlop", "few-from-base", _FEW_SEEDS), Probe("imitated.py", "atlop", "few-from-base")),
    ("run.py", "--plan", "few"),
    (100, 60, 100),
)
PLANS = {"small": SMALL, "converged": CONVERGED, "few": FEW}


def plan_of(recipe: str) -> Plan:
    """Return the plan with a recipe."""
    return next(plan for plan in PLANS.values() if recipe in plan.recipes)
