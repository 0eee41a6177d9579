"""What the paper prints: its tables 2 to 5 and 7, and how the authors of the backbones train.

``COMMON`` and ``UPSTREAM`` are the arguments of scripts/run_bert.sh and scripts/run_roberta.sh in ATLOP and in DREEAM,
as the paper has it (section 4.3); DREEAM's leave the weight of the evidence loss open, so it is run.py's own, 0.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SEEDS = (66, 67, 68, 69, 70)  # five runs (section 4.3); 66 is the backbones' own
KINDS = {"base": "bert", "large": "roberta"}  # the encoders of the paper
NAMES = {"base": "BERT-base", "large": "RoBERTa-large"}
ISF_TITLES = {"base_isf": "base w. ISF", "fused_isf": "fused w. ISF"}

COMMON = (
    *("--train_file", "train_annotated.json", "--dev_file", "dev.json", "--test_file", "test.json"),
    *("--num_class", "97", "--num_labels", "4", "--train_batch_size", "4", "--test_batch_size", "8"),
    *("--gradient_accumulation_steps", "1", "--max_grad_norm", "1.0", "--warmup_ratio", "0.06"),
    *("--num_train_epochs", "30.0"),
)
_RATES = {"base": "5e-5", "large": "3e-5"}
UPSTREAM = {
    "atlop": {size: ("--learning_rate", rate) for size, rate in _RATES.items()},
    "dreeam": {
        size: ("--do_train", "--lr_transformer", rate, "--evi_thresh", "0.2", "--evi_lambda", "0.1")
        for size, rate in _RATES.items()
    },
}

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        study: of ``segdre study``, which makes ours.
        columns: of that study, those that the paper has, in its order.
        numbers: size of the encoder -> backbone -> title of the study's line -> the paper's numbers, one a column.
        grid: size of the encoder -> range of the threshold search: ``docred`` or ``redocred``, whichever is the data.
        isf: the paper's numbers of the lines with inference-stage fusion, by their names in ``ISF_TITLES``.
    """

    study: str
    columns: tuple[str, ...]
    numbers: Mapping[str, Mapping[str, Mapping[str, Numbers]]]
    grid: Mapping[str, str]
    isf: Mapping[str, Numbers] = field(default_factory=lambda: MappingProxyType({}))


_FOUR = ("dev Ign-F1", "dev F1", "test Ign-F1", "test F1")
_DOCRED = {"base": "docred", "large": "docred"}

TABLES = {
    "table2": PaperTable(
        "seeds",
        ("dev Ign-F1", "dev F1", "dev Intra-F1", "dev Inter-F1", "test Ign-F1", "test F1"),
        {
            "base": {
                "atlop": {
                    "base": (59.22, 61.09, 67.26, 53.20, 59.31, 61.30),
                    "fused": (59.52, 61.53, 67.80, 53.86, 59.22, 61.49),
                },
                "dreeam": {
                    "base": (60.51, 62.55, 68.39, 55.22, 60.03, 62.49),
                    "fused": (60.94, 63.00, 68.93, 55.73, 60.61, 62.88),
                },
            },
            "large": {
                "atlop": {
                    "base": (61.32, 63.18, 69.61, 55.01, 61.39, 63.40),
                    "fused": (61.68, 63.68, 69.99, 56.01, 61.61, 63.79),
                },
                "dreeam": {
                    "base": (62.29, 64.20, 70.16, 56.57, 62.12, 64.27),
                    "fused": (62.78, 64.73, 70.72, 57.30, 62.63, 64.80),
                },
            },
        },
        _DOCRED,
    ),
    "table3": PaperTable(
        "seeds",
        _FOUR,
        {
            "large": {
                "atlop": {"base": (76.88, 77.63, 76.94, 77.73), "fused": (79.48, 80.16, 79.63, 80.25)},
                "dreeam": {"base": (None, None, 77.39, 77.94), "fused": (79.30, 79.97, 79.68, 80.25)},
            }
        },
        {"base": "redocred", "large": "redocred"},
        {"base_isf": (None, None, 79.66, 80.73), "fused_isf": (80.13, 80.83, 80.67, 81.32)},
    ),
    "table4": PaperTable(
        "ablations",
        ("dev Ign-F1", "dev F1"),
        {
            "base": {
                "dreeam": {
                    "SegDRE": (60.98, 63.06),
                    "w/o salient entity identification": (60.62, 62.45),
                    "w/o dense": (60.84, 62.82),
                    "w/o sparse": (60.81, 62.80),
                    "w/o knowledge injection": (60.83, 62.83),
                    "w/o threshold grid search": (60.92, 62.84),
                    "naive ensemble, union": (60.72, 62.79),
                    "base": (60.60, 62.50),
                }
            }
        },
        _DOCRED,
    ),
    "table5": PaperTable(  # it does not say on whose sparse pairs: its sparse F1 stands beside both readings of it
        "selection",
        ("accuracy", "saliency", "dev F1", "dense F1", "sparse F1", "sparse F1, gold entity"),
        {
            "base": {
                "dreeam": {
                    "Regression (linear)": (73.86, 84.52, 62.95, 71.81, 40.13, 40.13),
                    "Regression (ZIP)": (74.35, 85.76, 63.06, 71.84, 40.79, 40.79),
                    "Aggregation": (69.14, 83.61, 62.93, 70.66, 39.46, 39.46),
                    "Max Mention": (38.06, 54.67, 62.68, 61.03, 24.92, 24.92),
                    "Edit Distance": (36.29, 55.53, 62.59, 66.04, 23.75, 23.75),
                }
            }
        },
        _DOCRED,
    ),
    "table7": PaperTable(
        "injection",
        ("dev Ign-F1", "dev F1"),
        {
            "base": {
                "dreeam": {
                    "ground truth": (40.55, 41.12),
                    "dense inference": (40.31, 41.05),
                    "original text": (30.97, 31.63),
                }
            },
            "large": {"dreeam": {"ground truth": (64.77, 65.20), "dense inference": (64.74, 65.06)}},
        },
        {"base": "docred", "large": "redocred"},
    ),
}
