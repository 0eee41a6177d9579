"""DocuNet (https://github.com/zjunlp/DocuNet): descriptions of its model, its batches and its train script."""

from collections.abc import MutableMapping
from typing import Any

from torch import nn

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.script import ATTRIBUTES, OPTIONS, Names, Script, dev_scores

BACKBONE = Backbone(
    name="docunet",
    repository="https://github.com/zjunlp/DocuNet",
    batch=("input_ids", "attention_mask", "labels", "entity_pos", "hts"),
    not_for_prediction=frozenset({"labels"}),
    encoder="bert_model",
    threshold=None,  # a relation's logit has to exceed zero
)


class _Attention(nn.Module):
    """Stands for allennlp's matrix attentions, which a broken value of ``--channel_type`` alone would compute with."""

    @staticmethod
    def register(name: str) -> Any:
        return lambda cls: cls


def install(names: MutableMapping[str, Any]) -> None:
    """Turn the reader, a class with a method ``read(file)``, into a function."""
    original = names["ReadDataset"]

    def read_split(path: str, tokenizer: Any, dataset: str, max_seq_length: int) -> Any:
        return original(dataset, tokenizer, max_seq_length).read(path)

    class ReadDataset:
        def __init__(self, dataset: str, tokenizer: Any, max_seq_length: int) -> None:
            self.tokenizer, self.how = tokenizer, {"dataset": dataset, "max_seq_length": max_seq_length}

        def read(self, path: str) -> Any:
            return names["read_split"](path, self.tokenizer, **self.how)

    names["read_split"], names["ReadDataset"] = read_split, ReadDataset


SCRIPT = Script(
    file="train_balanceloss.py",
    patch="",
    versions={"b2be92ad0ae1dfe454a633605b694f937415465d": "aa946e1 (Update README.md)"},
    options=OPTIONS
    | {"--bert_lr", "--channel_type", "--dataset", "--down_dim", "--learning_rate", "--log_dir"}
    | {"--max_height", "--num_labels", "--train_from_saved_model", "--unet_in_dim", "--unet_out_dim"},
    attributes=ATTRIBUTES
    | {"bert_model", "bertdrop", "channel_type", "liner", "loss_fnt"}
    | {"min_height", "num_labels", "segmentation_net", "unet_in_dim", "unet_out_dim"},
    checkpoint="{folder}/checkpoint.pt",
    save_path="{folder}/checkpoint.pt",
    checkpoint_key="checkpoint",
    scores=lambda score, metrics: dev_scores(float(score), metrics),
    names=Names(reader="read_split"),
    modules=("model_balanceloss", "prepro", "utils_sample"),
    install=install,
    report="report",
    supplied={
        "allennlp.modules.matrix_attention": {
            f"{kind}MatrixAttention": _Attention for kind in ("DotProduct", "Cosine", "Bilinear")
        },
        "allennlp.modules.matrix_attention.matrix_attention": {"MatrixAttention": _Attention},
        "overrides": {"overrides": lambda function: function},
    },
    refused={"train_from_saved_model": "--load_path takes the weights of a saved base"},
    values={"channel_type": ("context-based",), "dataset": ("docred",)},
    places=frozenset({"log_dir"}),
    reading={"dataset": str, "max_seq_length": int},
    args={
        "unet_in_dim": int,
        "unet_out_dim": int,
        "down_dim": int,
        "max_height": int,
        "channel_type": str,
    },
    max_entities="max_height",
)
