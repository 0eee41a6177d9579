"""P3M (https://github.com/www-Ye/P3M): descriptions of its model, its batches and its two train scripts.

What it needs is what SSR-PU needs but for ``--isrank``: the package ``unidecode``, both files in ``meta/``, and every
relation among the labels of the train file; ``--la`` written out for ``--load_path`` (``la`` is in the file's name,
where its default is written otherwise). Its logits are cosines of the embeddings of pairs and relations.
"""

from argparse import Namespace
from dataclasses import replace

from segdre_plugin.adapters import ssr_pu
from segdre_plugin.backbones.script import ATTRIBUTES, OPTIONS

BACKBONE = replace(
    ssr_pu.BACKBONE,
    name="p3m",
    repository="https://github.com/www-Ye/P3M",
    constants={"eval": True},  # without augmentation and mixup
    logits="output",
)


def _saved(args: Namespace) -> str:
    """Return the name of the checkpoint, which the script makes up of its arguments."""
    data, folder = args.train_file.split(".")[0], args.data_dir.split("/")[-1]
    names = ("e", "la", "aug", "dropout_rate", "use_mixup", "mixup_alpha", "mixup_rate", "mixup_type", "seed")
    return "_".join([data, args.transformer_type, folder, *(f"{name}_{getattr(args, name)}" for name in names)])


SCRIPT = replace(
    ssr_pu.SCRIPT,
    versions={
        "7891517c69bb73b4192cdc3a321e32266ed2875b": "a2af6d0 (first commit) and later",
        "7e9fb4a70ce0defe46eaf7f4883fdd0f23ae2a4f": "a2af6d0 (first commit) and later, train_fully_supervised.py",
    },
    options=OPTIONS
    | {"--aug", "--beta", "--dropout_rate", "--e", "--gamma", "--la", "--learning_rate"}
    | {"--mixup_alpha", "--mixup_rate", "--mixup_type", "--use_mixup"},
    attributes=ATTRIBUTES | {"args", "loss", "model", "priors_l", "priors_o", "r", "r_emb", "re_linear", "rels", "w"},
    saved=_saved,
    values={"aug": ("no_aug", "pos_aug", "all_aug"), "mixup_type": ("r_emb", "e_emb")},
    args={
        **{"num_class": int, "beta": float, "gamma": float, "la": float, "aug": str},
        **{"use_mixup": int, "mixup_alpha": float, "mixup_rate": float, "mixup_type": str},
    },
)
