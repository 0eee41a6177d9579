"""The settings of the method, with the paper's values as defaults, and the stages that depend on each.

A setting is written once: its field says what it means, which values are legal and which stages read it. The options
of ``--seg`` (:mod:`segdre_plugin.seg.options`) and the settings of a stage (:mod:`segdre_plugin.seg.settings`) are
derived from that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from string import Formatter
from typing import Any

from segdre_plugin.backbones.losses import UPSTREAM, loss_names
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.strategies import Strategy, get_strategy, strategy_names

STAGES = ("base", "identify", "dense", "sparse")
TRAINED = ("base", "dense", "sparse")  # with the backbone's own classifier: they have margins
NEEDS = {"base": (), "identify": ("base",), "dense": ("identify",), "sparse": ("identify", "dense")}
# What an option is about -> its title in the help.
GROUPS = {
    "paper": "the paper",
    "stages": "stages: which, how long, and who trains them",
    "speed": "speed and memory",
    "files": "files and data",
    "beyond": "beyond the paper",
}


@dataclass(frozen=True)
class Setting:
    """What is known of a setting besides its name, type and default.

    Attributes:
        help: its meaning, in a line.
        group: what it is about, of ``GROUPS``.
        stages: those whose result depends on it.
        training: whether it only matters where a stage trains a model.
        shared: whether the base depends on it, too, where it shares its encoder with identify and dense.
        metavar: what stands for its value in the help.
        choices: its legal values, asked for when they are needed; None: any. Those of a setting with a ``metavar``
            are names that users can register, and are looked up where they are used.
        legal: value -> whether it is legal.
        hint: what to do about an illegal one.
    """

    help: str
    group: str
    stages: tuple[str, ...] = ()
    training: bool = False
    shared: bool = False
    metavar: str | None = None
    choices: Callable[[], Iterable[str]] | None = None
    legal: Callable[[Any], bool] | None = None
    hint: str = ""


def setting(default: Any, help: str, group: str, **more: Any) -> Any:
    """Make the field of a setting; ``more`` are further attributes of :class:`Setting`."""
    return field(default=default, metadata={"setting": Setting(help, group, **more)})


def settings_of(owner: Any) -> dict[str, Setting]:
    """Return the settings of a dataclass or an instance of one, by the names of their fields."""
    return {f.name: f.metadata["setting"] for f in fields(owner) if "setting" in f.metadata}


def check_settings(owner: Any, values: Mapping[str, Any], prefix: str = "") -> None:
    """Check values of the settings of a dataclass; None is legal for an optional one, ``prefix`` begins their names.

    Raises:
        SegDREError: if a value is not legal; no number but a finite one is.
    """
    for name, known in settings_of(owner).items():
        value = values[name]
        title = prefix + name.replace("_", "-") if prefix else name
        if isinstance(value, float) and not math.isfinite(value):
            raise SegDREError(f"{title} is {value}", known.hint)
        if known.choices and not known.metavar and value not in known.choices():
            raise SegDREError(f"{title} is {value!r}", f"choose from {', '.join(known.choices())}")
        if known.legal and value is not None and not known.legal(value):
            raise SegDREError(f"{title} is {value}", known.hint)


def check_template(name: str, text: str, known: Sequence[str]) -> None:
    """Refuse a text for ``str.format`` with more in its braces than the name of a ``known`` field.

    A stranger's ``{tail:>200000000}`` takes for ever, and ``{head.__class__}`` leads anywhere.

    Raises:
        SegDREError: with the first field that is something else; ``name`` is that of the text.
    """
    hint = f"use only the fields {{{'}, {'.join(known)}}}"
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise SegDREError(f"{name} is {text!r:.200}: {error}", hint) from None
    for _, found, form, conversion in parts:
        if found is not None and (found not in known or form or conversion):
            raise SegDREError(f"{name} is {text!r:.200}: {found!r:.80} is not a plain field", hint)


def are_pairs(values: Sequence[str]) -> bool:
    """Return whether these are pairs of entity types, HEAD:TAIL each."""
    return all(value.count(":") == 1 and all(name.strip() for name in value.split(":")) for value in values)


def is_share(value: float) -> bool:
    """Return whether a number is between 0 and 1."""
    return 0 <= value <= 1


@dataclass(frozen=True)
class SegConfig:
    """Settings of the stages; each field has its help.

    The count head is that of section 3.3, ``alpha`` that of eq. 9. Branches above ``branch_budget`` are left out and
    counted. In the paper, ``link`` is off, training documents have ``gold`` salient entities, not those that the
    ``same`` strategy chooses as in dev and test, dense and sparse start from the pretrained ``encoder`` with new
    layers above it, and each stage has an encoder of its own (``share_encoder``:
    :mod:`segdre_plugin.stages.shared_encoder`). Strategies: :mod:`segdre_plugin.stages.strategies`; losses:
    :mod:`segdre_plugin.backbones.losses`.
    """

    hidden: int = setting(
        768,
        "width of the count head",
        group="paper",
        metavar="N",
        stages=("identify",),
        training=True,
        shared=True,
        legal=lambda value: value >= 1,
        hint="pass a positive width; the paper has 768",
    )
    alpha: float = setting(
        1.0,
        "share of the dense triples that is injected, best first (0: no injection)",
        group="paper",
        metavar="SHARE",
        stages=("sparse",),
        legal=is_share,
        hint="pass a share from 0 (inject nothing) to 1 (inject all)",
    )
    branch_budget: int = setting(
        512,
        "most branch tokens of a document",
        group="beyond",
        metavar="TOKENS",
        stages=("sparse",),
        legal=lambda value: value >= 0,
        hint="pass a number of tokens, 0 or more",
    )
    link: bool = setting(
        False, "mentions of the entity that a branch names see the branch", group="beyond", stages=("sparse",)
    )
    template_from: str = setting(
        "{relation} {tail}",
        "text of a branch for (salient, r, tail)",
        group="paper",
        metavar="TEXT",
        stages=("sparse",),
    )
    template_to: str = setting(
        "{head} {relation}",
        "text of a branch for (head, r, salient)",
        group="paper",
        metavar="TEXT",
        stages=("sparse",),
    )
    salient: str = setting(
        "zip",
        "strategy that chooses the salient entity",
        group="paper",
        stages=("identify",),
        shared=True,
        metavar="NAME",
        choices=strategy_names,
    )
    salient_k: int = setting(
        1,
        "most salient entities of a document",
        group="beyond",
        stages=("identify",),
        shared=True,
        metavar="K",
        legal=lambda value: value >= 1,
        hint="pass 1 (as in the paper) or more",
    )
    train_salient: str = setting(
        "gold",
        "salient entities of training documents: gold, or by the same strategy",
        group="beyond",
        stages=("dense", "sparse"),
        shared=True,
        choices=lambda: ("gold", "same"),
    )
    loss: str = setting(
        UPSTREAM,
        "loss of base, dense and sparse (atl: the script's own)",
        group="beyond",
        stages=TRAINED,
        metavar="NAME",
        choices=loss_names,
    )
    start: str = setting(
        "encoder",
        "what dense and sparse start from: the pretrained encoder, or the base model",
        group="beyond",
        stages=("dense", "sparse"),
        choices=lambda: ("encoder", "base"),
    )
    share_encoder: bool = setting(
        False,
        "train one encoder with three heads for base, identify and dense, in the base's epochs",
        group="beyond",
        stages=("base",),
    )

    pairs: tuple[str, ...] = setting(
        (),
        "types of the head and the tail of the pairs that are candidates, one or more (all pairs)",
        group="files",
        stages=STAGES,
        metavar="HEAD:TAIL",
        legal=are_pairs,
        hint="pass two entity types with a colon between them, such as Chemical:Disease",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "pairs", tuple(sorted(set(self.pairs))))  # JSON has lists; no order means anything
        check_settings(self, vars(self))
        for name in ("template_from", "template_to"):
            text = getattr(self, name)
            check_template(name, text, ("head", "relation", "tail"))
            if not text.strip():
                raise SegDREError(f"{name} is empty", "use the fields {head}, {relation} and {tail}")
        strategy = self.strategy  # refuses an unknown name
        if self.train_salient == "same" and strategy.predicts:
            raise SegDREError(
                f"train_salient is 'same', but strategy {self.salient} rests on predictions, and train has none",
                "leave train_salient at 'gold', or use a strategy that needs no predictions",
            )

    @property
    def strategy(self) -> Strategy:
        """Return the strategy that chooses salient entities."""
        return get_strategy(self.salient)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the stages that have a model of their own.

        Those are base and sparse where the base shares its encoder, else all, or all but identify where the strategy
        trains no head.
        """
        if self.share_encoder:
            return ("base", "sparse")
        return tuple(stage for stage in STAGES if stage in TRAINED or self.strategy.head)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SegConfig:
        """Select the settings of the method among others; a missing one has the paper's value."""
        return cls(**{f.name: settings[f.name] for f in fields(cls) if f.name in settings})
