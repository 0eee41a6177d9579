"""Stage identify without training, and how other strategies would have done (paper section 6.1, table 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from segdre_plugin.data.files import write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.salient import Chain, saliency
from segdre_plugin.stages.artifacts import SALIENT
from segdre_plugin.stages.config import SegConfig
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.strategies import choose_salient, get_strategy, strategy_names


def identify(
    folder: Path, splits: Mapping[str, Split], config: SegConfig, seed: int, base: Callable[[str], Margins]
) -> None:
    """Choose salient entities by a strategy that needs no training, and write what training would have left.

    Args:
        folder: gets ``salient.json`` and ``metrics.json``.
        splits: name -> split; train is left out.
        config: the strategy, and how many entities.
        seed: the run's.
        base: split name -> the base model's margins.

    Raises:
        SegDREError: if the strategy lacks what it needs.
    """
    strategy, k = config.strategy, config.salient_k
    wanted = {name: split for name, split in splits.items() if name != "train"}
    chosen = {
        name: choose_salient(strategy, split.documents, k=k, seed=seed, base=base(name))
        for name, split in wanted.items()
    }
    write_json(folder / SALIENT, chosen)
    scores = {name: saliency(s.documents, chosen[name], k) if s.has_gold else {} for name, s in wanted.items()}
    write_json(folder / "metrics.json", scores)


def compare_strategies(
    split: Split, salient: Sequence[Chain], config: SegConfig, seed: int, base: Margins
) -> dict[str, dict[str, float]]:
    """Judge a run's salient entities beside those of all strategies that need neither training nor labels.

    Args:
        split: a split with gold.
        salient: what the run chose for each document.
        config: the run's strategy, and how many entities.
        seed: the run's.
        base: the base model's margins.

    Returns:
        Strategy -> what :func:`segdre_plugin.salient.saliency` says of it, the run's own one first.
    """
    k = config.salient_k
    others = (get_strategy(name) for name in strategy_names() if name != config.salient)
    chosen = {config.salient: salient} | {
        strategy.name: choose_salient(strategy, split.documents, k=k, seed=seed, base=base)
        for strategy in others
        if not (strategy.head or strategy.needs_gold)
    }
    return {name: saliency(split.documents, chains, k) for name, chains in chosen.items()}
