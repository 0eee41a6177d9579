"""SSR-PU (https://github.com/www-Ye/SSR-PU): descriptions of its model, its batches and its two train scripts.

What it needs: the package ``unidecode``; ``meta/rel2id.json`` and ``meta/relation_map.json``, which its repository has;
``--isrank 1`` (without a threshold class, margins would have another meaning); every relation at least once among the
labels of the train file, because the loss divides by its share. Those shares, the priors, are of all pairs of the train
file in every stage. ``train.py`` keeps the last epoch, ``train_fully_supervised.py`` the best one.
"""

from argparse import Namespace

from segdre_plugin.backbones.backbone import Backbone, Pooling
from segdre_plugin.backbones.script import ATTRIBUTES, OPTIONS, Script

BACKBONE = Backbone(
    name="ssr_pu",
    repository="https://github.com/www-Ye/SSR-PU",
    batch=("input_ids", "attention_mask", "labels", "entity_pos", "hts"),
    not_for_prediction=frozenset({"labels"}),
    loss=None,  # a risk of positive-unlabelled learning, in forward
    pooling=Pooling(epsilon=1e-5),
)


def _saved(args: Namespace) -> str:
    """Return the name of the checkpoint, which the script makes up of its arguments."""
    data, folder = args.train_file.split(".")[0], args.data_dir.split("/")[-1]
    how = f"{args.m_tag}_isrank_{args.isrank}_m_{args.m}_e_{args.e}"
    return f"{data}_{args.transformer_type}_{folder}_{how}_seed_{args.seed}"


SCRIPT = Script(
    file="train.py",
    patch="",
    versions={
        "4a000e7acc400212af9de0e7bdd80f6a91190e7f": "e6a548a (update) and later",
        "3eeec98c8594ca2dabd6ab20fcd9beeef9c755fc": "e6a548a (update) and later, train_fully_supervised.py",
    },
    options=OPTIONS | {"--beta", "--e", "--gamma", "--isrank", "--learning_rate", "--m", "--m_tag"},
    attributes=ATTRIBUTES | {"args", "margin", "model", "priors_l", "priors_o", "rels", "weight"},
    checkpoint="{folder}/checkpoint.pt",
    save_path="{folder}/checkpoint.pt",
    no_save_path=".",  # it makes a folder of this name
    saved=_saved,
    report="cal_val_risk",
    reported=0.0,
    required=("unidecode",),
    values={"isrank": (1,), "m_tag": ("PN", "PU", "S-PU")},
    reads=("args", "path", "tokenizer"),
    args={"m": float, "isrank": int, "num_class": int, "m_tag": str, "beta": float, "gamma": float},
)
