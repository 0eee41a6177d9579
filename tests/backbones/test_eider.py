"""Eider's reader, as the adapter hands it on."""

from argparse import Namespace

import pytest

from segdre_plugin import SegDREError
from segdre_plugin.adapters import SCRIPTS


def read(args):
    """A reader that would open the files that its arguments name."""
    assert (args.feature_path, args.evi_pred_file, args.rel2htype_file) == ("", "", "")
    return [{"title": "a", "sen_pos": [(0, 3)], "sen_labels": [[1]]}]


def names():
    made = {"read_docred": lambda args, path, tokenizer, ablation, if_inference: read(args)}
    SCRIPTS["eider"].install(made)
    return made


@pytest.mark.parametrize(
    ("evidence", "how", "sentences"),
    [("none", {}, False), ("none", {"if_inference": False}, True), ("all", {}, True)],
)
def test_sentences_are_read_where_they_are_used(evidence, how, sentences):
    args = Namespace(ablation="eider", evi_eval_mode=evidence)
    (feature,) = names()["read_docred"](args, "dev.json", None, **how)
    assert ("sen_pos" in feature, "sen_labels" in feature) == (sentences, sentences)


def test_a_bundle_names_no_files_and_no_ablation_that_reads_them():
    script = SCRIPTS["eider"]
    with pytest.raises(SegDREError, match="feature_path: expected only max_seq_length"):
        script.check_args({"feature_path": "pickles"}, "bundle")
    with pytest.raises(SegDREError, match="ablation 'evi_pred': expected atlop or eider"):
        names()["read_docred"](Namespace(ablation="evi_pred", evi_eval_mode="none"), "dev.json", None)
