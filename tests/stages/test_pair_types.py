"""Candidate pairs by entity type against a slow loop; strategies choose among them; what they leave out is counted."""

import json
from itertools import permutations
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin import SegConfig, SegDREError, prepare_features, wrap_model
from segdre_plugin.data.splits import Split
from segdre_plugin.seg import evaluation_run
from segdre_plugin.seg.options import parse
from segdre_plugin.stages import isf
from segdre_plugin.stages.branches import Verbaliser
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.pair_types import candidate_cells, candidate_gold, check_types, pair_mask, untyped
from segdre_plugin.stages.stage import ChainResult, training_inputs
from segdre_plugin.stages.strategies import Strategy, choose_salient, get_strategy

NAMES = ("CHEM", "DISE", "GENE")
ALL = [f"{head}:{tail}" for head in NAMES for tail in NAMES]
BOTH = ("CHEM:DISE", "DISE:CHEM")


def document(*entities, labels=(), title="T"):
    """A document whose entities have these types, one a mention."""
    found = {"title": title, "sents": [["."]], "vertexSet": [[{"name": "a", "type": t} for t in e] for e in entities]}
    return found | {"labels": [{"h": h, "t": t, "r": "CID"} for h, t in labels]}


def slow(one, pairs):
    """The candidates, pair by pair and mention by mention."""
    found = set()
    for h, t in permutations(range(len(one["vertexSet"])), 2):
        for head in one["vertexSet"][h]:
            for tail in one["vertexSet"][t]:
                if not pairs or f"{head['type']}:{tail['type']}" in pairs:
                    found.add((h, t))
    return found


typed = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=2), max_size=5)
asked = st.lists(st.sampled_from(ALL), max_size=3)


class TestMask:
    @given(typed, asked, st.data())
    def test_slow_loop(self, entities, pairs, data):
        every = list(permutations(range(len(entities)), 2))
        one = document(*entities, labels=data.draw(st.lists(st.sampled_from(every), max_size=4)) if every else ())
        due = slow(one, pairs)
        assert {(h, t) for h, t in np.argwhere(pair_mask(one, pairs)).tolist()} == due
        kept = [label for label in one["labels"] if (label["h"], label["t"]) in due]
        assert candidate_gold(one, pairs)["labels"] == kept
        index = np.array(every, dtype=np.int64).reshape(-1, 2)
        nothing = np.zeros(len(index), dtype=np.int64)
        cells = Margins(nothing, index[:, 0], index[:, 1], nothing + 1, nothing * 1.0, np.zeros((len(index), 0), bool))
        left = candidate_cells(cells, [one], pairs)
        assert {(h, t) for h, t in zip(left.head.tolist(), left.tail.tolist(), strict=True)} == due

    def test_direction_and_every_mention_count(self):
        one = document(["CHEM"], ["DISE"], ["GENE", "DISE"], ["DISE", "DISE"])
        assert np.argwhere(pair_mask(one, ["CHEM:DISE"])).tolist() == [[0, 1], [0, 2], [0, 3]]
        assert pair_mask(one, []).sum() == 12  # negative control: all pairs but (h, h)


@pytest.mark.parametrize("stage", ["base", "identify", "dense", "sparse"])
@pytest.mark.parametrize("pairs", [(), BOTH, ("CHEM:DISE",), ("GENE:GENE",)])
def test_features_hold_the_stages_candidates_alone(stage, pairs):
    features = [tiny.feature(40, seed=seed) for seed in range(3)]
    n = [len(one["entity_pos"]) for one in features]
    documents = [
        document(*([NAMES[(i + e) % 2]] for e in range(size)), title=features[i]["title"]) for i, size in enumerate(n)
    ]
    model = wrap_model(tiny.model(), stage=stage, config=SegConfig(hidden=8))
    silent = Verbaliser(None, {})  # there is nothing to say
    more = {"salient": [(0,)] * 3, "triples": [[]] * 3, "verbaliser": silent}
    made = prepare_features(features, documents, model, pairs=pairs, **more)
    found = {(d, h, t) for d, one in zip(made.documents, made.features, strict=True) for h, t in one["hts"]}
    meant = {"dense": lambda h, t: 0 in (h, t), "sparse": lambda h, t: 0 not in (h, t)}.get(stage, lambda h, t: True)
    assert found == {(d, h, t) for d, one in enumerate(documents) for h, t in slow(one, pairs) if meant(h, t)}
    assert bool(found) == (pairs != ("GENE:GENE",))


class TestSalient:
    # entities 0 and 3 are in no candidate pair, and each rule would take one of them
    one = document(["GENE"] * 5, ["CHEM"], ["DISE"], ["GENE"], labels=[(0, 3), (3, 0), (1, 3), (1, 2)])

    @pytest.mark.parametrize("name", ["max-mention", "edit-distance", "random", "gold"])
    def test_is_in_a_candidate_pair(self, name):
        for seed in range(20):
            (chain,) = choose_salient(get_strategy(name), [self.one], k=4, seed=seed, pairs=BOTH)
            assert set(chain) <= {1, 2}
            assert chain

    def test_negative_control(self):
        assert choose_salient(get_strategy("max-mention"), [self.one]) == [(0,)]
        assert choose_salient(get_strategy("gold"), [self.one]) == [(3,)]
        assert choose_salient(get_strategy("gold"), [self.one], pairs=BOTH) == [(1,)]

    @pytest.mark.parametrize("count", [-1.0, 0.0, 2.0])
    def test_by_counts_whatever_they_are(self, count):
        counts = {"document": np.array([0, 0]), "pair": np.array([[1, 2], [2, 1]]), "count": np.array([count] * 2)}
        assert choose_salient(get_strategy("linear"), [self.one], counts=counts, pairs=BOTH) == [(1,)]

    def test_none_without_a_candidate(self):
        lone = document(["GENE"], ["GENE"], labels=[(0, 1)])
        assert choose_salient(get_strategy("max-mention"), [lone], pairs=BOTH) == [()]
        assert choose_salient(get_strategy("max-mention"), [lone]) == [(0,)]

    def test_one_of_the_users_own_is_held_to_it(self):
        mine = Strategy("mine", lambda case, k: [3])
        with pytest.raises(SegDREError, match=r"of its 4 entities that are in a candidate pair, \[1, 2\], got \[3\]"):
            choose_salient(mine, [self.one], pairs=BOTH)

    def test_labels_that_no_strategy_reads_are_left_alone(self):
        broken = self.one | {"labels": [{"h": 9}]}
        assert choose_salient(get_strategy("max-mention"), [broken], pairs=BOTH) == [(1,)]

    def test_training(self):
        found = training_inputs(Split("train", Path(), [self.one]), SegConfig(pairs=BOTH), 0)
        assert (found.salient, found.triples) == ([(1,)], [[(1, "CID", 2)]])
        found = training_inputs(Split("train", Path(), [self.one]), SegConfig(), 0)
        assert (found.salient, len(found.triples[0])) == ([(3,)], 3)


@pytest.mark.parametrize("pairs", [(), BOTH])
def test_inference_stage_fusion_keeps_to_them(monkeypatch, pairs):
    one = document(["CHEM"], ["DISE"], ["CHEM"])
    index = np.array([(0, 1), (0, 2), (1, 2), (2, 0)])  # what the base model says of a pseudo-document
    ones = np.ones(4, dtype=np.int64)
    cells = Margins(0 * ones, index[:, 0], index[:, 1], ones, 1.0 * ones, np.zeros((4, 0), dtype=bool))
    for module, name, value in (
        (evaluation_run, "run_chain", ChainResult({"base": cells})),
        (evaluation_run, "build_chain", {}),
        (isf, "pseudo_features", ([], [])),
        (isf, "score_relations", cells),
    ):
        monkeypatch.setattr(module, name, lambda *_, value=value, **__: value)
    run = MagicMock(config=SegConfig(pairs=pairs), split=Split("test", Path("test.json"), [one]), fuses=True)
    evaluation_run.EvaluationRun._predict(run, MagicMock(), None)
    found = list(zip(run.pseudo.head.tolist(), run.pseudo.tail.tolist(), strict=True))
    assert found == ([(0, 1), (1, 2)] if pairs else list(map(tuple, index.tolist())))


class TestCheck:
    def splits(self, *documents):
        return {"train": Split("train", Path("train.json"), documents)}

    def test_says_what_is_left_out(self):
        splits = self.splits(TestSalient.one, document(["GENE"], ["DISE"], labels=[(0, 1)]))
        due = "4 of 5 gold triples of train are on other pairs; 1 of 2 documents have no candidate pair"
        assert check_types(splits, BOTH) == [due]
        assert check_types(self.splits(document(["CHEM"], ["DISE"], labels=[(0, 1)])), BOTH) == [
            "0 of 1 gold triples of train are on other pairs"
        ]
        assert check_types(splits, ()) == []

    def test_refuses_types_that_train_does_not_have(self):
        with pytest.raises(SegDREError) as caught:
            check_types(self.splits(TestSalient.one), ["Chemical:DISE"])
        assert "no entity of type Chemical in train.json" in str(caught.value)
        assert "-> types there: CHEM, DISE, GENE" in str(caught.value)

    @pytest.mark.parametrize("entity", [[None], [""], [3], [["CHEM"]]])
    def test_refuses_entities_without_a_type(self, entity):
        one = document(["CHEM"], entity)
        assert untyped(one) == ["vertexSet[1]: expected a type: candidates are pairs of types"]
        with pytest.raises(SegDREError, match="document 0 'T': vertexSet"):
            check_types(self.splits(one), BOTH)
        assert untyped(document(["CHEM"], [None, "DISE"])) == []


class TestOption:
    def test_one_or_more_in_any_order(self):
        options, rest = parse(["--seed", "1", "--seg", "--seg-pairs", *BOTH, "--seg-pairs", "GENE:GENE"])
        assert options.config.pairs == ("CHEM:DISE", "DISE:CHEM", "GENE:GENE")
        assert rest == ["--seed", "1"]
        assert SegConfig(pairs=BOTH[::-1]) == SegConfig(pairs=BOTH) == SegConfig.of({"pairs": list(BOTH)})
        assert SegConfig(**json.loads(json.dumps(vars(SegConfig(pairs=BOTH))))).pairs == BOTH
        assert parse(["--seg"])[0].config.pairs == ()

    @pytest.mark.parametrize("text", ["CHEM", "CHEM:", ":DISE", "A:B:C", " : ", "CHEM-DISE"])
    def test_refuses_what_is_no_pair(self, text):
        with pytest.raises(SegDREError, match="--seg-pairs is") as caught:
            parse(["--seg", "--seg-pairs", text])
        assert "such as Chemical:Disease" in str(caught.value)
