"""Models that differ from ATLOP in where their logits are, who computes their loss, and which pairs they need."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from torch import nn

from segdre_plugin import SegDREError, prepare_features, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones.batching import batches
from segdre_plugin.backbones.features import keep_pairs
from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.backbones.reference import AdaptiveThresholdLoss, ReferenceModel, collate_fn
from segdre_plugin.stages.config import STAGES
from segdre_plugin.stages.decisions import decisions
from segdre_plugin.stages.scoring import score_counts, score_relations
from segdre_plugin.zip_head import CountLoss

pytestmark = pytest.mark.slow

HOW = {"batch_size": 3, "device": "cpu", "label": ""}


class Kind(ReferenceModel):
    """The reference model up to the classifier."""

    def pair_features(self, input_ids, attention_mask, entity_pos, hts):
        hs, rs, ts = self.get_hrt(*self.encode(input_ids, attention_mask), entity_pos, hts)
        head = torch.tanh(self.head_extractor(torch.cat([hs, rs], dim=1)))
        tail = torch.tanh(self.tail_extractor(torch.cat([ts, rs], dim=1)))
        blocks = (-1, self.emb_size // self.block_size, self.block_size)
        return (head.reshape(blocks).unsqueeze(3) * tail.reshape(blocks).unsqueeze(2)).flatten(start_dim=1)


def gold(labels):
    return torch.cat([torch.tensor(part) for part in labels]).float()


class Risk(Kind):
    """Computes its loss itself and gives logits, as SSR-PU does."""

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        del self.loss_fnt, self.num_labels

    def logits(self, *inputs):
        return self.bilinear(self.pair_features(*inputs))

    def forward(self, input_ids, attention_mask, labels=None, entity_pos=None, hts=None):
        logits = self.logits(input_ids, attention_mask, entity_pos, hts)
        if labels is None:
            return logits
        margin = logits[:, 1:] - logits[:, :1]  # other widths than the relations' do not fit
        return ((margin - gold(labels)[:, 1:]) ** 2).mean(), logits


class Cosine(Risk):
    """Has an embedding of a pair where others have logits, as P3M does."""

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        self.bilinear = nn.Linear(self.bilinear.in_features, 12)
        self.relations = nn.Parameter(torch.randn(tiny.CLASSES, 12, generator=torch.Generator().manual_seed(4)))

    def logits(self, *inputs):
        return F.normalize(super().logits(*inputs), dim=-1) @ F.normalize(self.relations, dim=-1).T


class Behind(Kind):
    """Adds the document's scores behind the classifier, as GREP does."""

    def forward(self, input_ids, attention_mask, labels=None, entity_pos=None, hts=None, square=None):
        logits = self.bilinear(self.pair_features(input_ids, attention_mask, entity_pos, hts))
        if square is not None:
            logits = torch.cat([torch.tensor(s).float() @ p for s, p in zip(square, _split(logits, hts), strict=True)])
        logits = logits + torch.linspace(0.0, 3.0, tiny.CLASSES)
        found = (self.loss_fnt.get_label(logits, num_labels=self.num_labels),)
        return found if labels is None else (self.loss_fnt(logits, gold(labels)), *found)


class Square(Kind):
    """Lets all pairs of a document, (h, h) too, see each other and returns a bare loss, as KD-DocRE does."""

    def forward(self, input_ids, attention_mask, labels=None, entity_pos=None, hts=None):
        rows = self.pair_features(input_ids, attention_mask, entity_pos, hts)
        n = [len(entities) for entities in entity_pos]
        largest = max(n)
        parts = [part.view(size, size, -1) for size, part in zip(n, _split(rows, hts), strict=True)]
        grid = torch.stack([F.pad(p, (0, 0, 0, largest - len(p), 0, largest - len(p))) for p in parts])
        scores = self.bilinear(grid + grid.mean(dim=(1, 2), keepdim=True))
        logits = torch.cat([one[:size, :size].reshape(-1, tiny.CLASSES) for one, size in zip(scores, n, strict=True)])
        if labels is None:
            return self.loss_fnt.get_label(logits, num_labels=self.num_labels), logits
        return self.loss_fnt(logits, gold(labels))


def _split(rows, hts):
    return rows.split([len(pairs) for pairs in hts])


RISK = replace(tiny.ATLOP, name="risk", loss=None)
COSINE = replace(RISK, name="cosine", logits="output")
BEHIND = replace(tiny.ATLOP, name="behind", logits="loss")
SQUARE = replace(
    tiny.ATLOP, name="square", logits="loss", all_pairs=True, trained=lambda loss, output: loss, pooling=None
)
KINDS = [(Risk, RISK), (Cosine, COSINE), (Behind, BEHIND), (Square, SQUARE)]
NAMES = [spec.name for _, spec in KINDS]
kinds = pytest.mark.parametrize(("cls", "spec"), KINDS, ids=NAMES)


def document(title, n=4):
    return {"title": title, "sents": [["a"]], "vertexSet": [[{"name": "a"}]] * n}


def features(spec):
    """Features of three documents, with (h, h) where the model wants all pairs."""
    made = [tiny.feature(40, seed=1), tiny.feature(52, seed=2), tiny.feature(36, seed=3, n_entities=3)]
    for one in made if spec.all_pairs else ():
        known = {tuple(pair): row for pair, row in zip(one["hts"], one["labels"], strict=True)}
        n = len(one["entity_pos"])
        one["hts"] = [[h, t] for h in range(n) for t in range(n)]
        one["labels"] = [known.get((h, t), [1] + [0] * (tiny.CLASSES - 1)) for h, t in one["hts"]]
    return made


def stage_features(model, stage, spec):
    made = features(spec)
    needed = {"salient": [(0,)] * 3} if stage in ("dense", "sparse") else {}
    if stage == "sparse":
        needed |= {"triples": [[]] * 3, "verbaliser": NoBranches()}
    return prepare_features(made, [document(one["title"]) for one in made], model, **needed).features


class NoBranches:
    config = tiny.SegConfig()

    def __call__(self, *_):
        return type("Branches", (), {"branches": [], "owners": [], "triples": [], "left_out": 0})


def own_logits(model, batch):
    """The logits that the model itself decides by, of its own forward, unwrapped."""
    with torch.no_grad():
        if isinstance(model, Risk):
            return model(batch[0], batch[1], None, *batch[3:])
        seen = []
        label, model.loss_fnt.get_label = model.loss_fnt.get_label, lambda x, **_: seen.append(x) or torch.zeros_like(x)
        model(batch[0], batch[1], None, *batch[3:])
        model.loss_fnt.get_label = label
        return seen[0]


def meant(feature, stage):
    """Which pairs of a feature with all pairs a stage is about, one by one."""
    return [h != t and (stage != "dense" or 0 in (h, t)) and (stage != "sparse" or 0 not in (h, t)) for h, t in feature]


def test_what_tells_models_that_compute_their_loss_apart():
    """Constants are arguments of forward, and who computes the loss itself has no loss module."""
    flagged = replace(COSINE, constants={"eval": True})
    with_flag = tiny.model(cls=Cosine)
    with_flag.forward = lambda input_ids, attention_mask, labels, entity_pos, hts, eval=False: None
    assert flagged.problems(with_flag) == []
    assert flagged.demands > COSINE.demands
    assert flagged.problems(tiny.model(cls=Cosine)) == ["Cosine.forward: no argument 'eval'"]
    assert RISK.problems(tiny.model(cls=Risk)) == []
    assert RISK.problems(tiny.model()) == [
        "ReferenceModel.loss_fnt: a loss module, and forward computes the loss itself"
    ]


@kinds
@pytest.mark.parametrize("stage", ["base", "dense", "sparse"])
def test_margins_decide_as_the_model(cls, spec, stage):
    model = tiny.model(cls=cls)
    plain = copy.deepcopy(model)
    wrap_model(model, stage=stage, adapter=spec)
    chosen = stage_features(model, stage, spec)
    found = score_relations(model, chosen, [0, 1, 2], wrap_collate(collate_fn, adapter=spec), **HOW)
    batch = collate_fn(chosen)
    due = decisions(own_logits(plain, batch), spec.most_labels(plain), spec.threshold)
    rows = [(d, h, t) for d, one in enumerate(chosen) for h, t in one["hts"]]
    expected = {
        (*rows[k], relation)
        for k, relation in due.nonzero().tolist()
        if not spec.all_pairs or meant([rows[k][1:]], stage)[0]
    }
    above = found.take(found.margin > 0)
    columns = (above.document, above.head, above.tail, above.relation)
    assert {*zip(*(column.tolist() for column in columns), strict=True)} == expected
    assert expected
    assert not (found.head == found.tail).any()


@kinds
@pytest.mark.parametrize("stage", ["base", "dense", "sparse"])
def test_the_loss_is_the_models_own_on_the_pairs_of_the_stage(cls, spec, stage):
    model = tiny.model(cls=cls).double()
    plain = copy.deepcopy(model)
    wrap_model(model, stage=stage, adapter=spec, fast=False)
    chosen = stage_features(model, stage, spec)
    output = model(*wrap_collate(collate_fn, adapter=spec)(chosen))
    loss = output if isinstance(output, torch.Tensor) else output[0]
    batch = collate_fn(chosen)
    if spec.all_pairs and stage != "base":  # the slow way: all logits, then those of the stage
        seen = []
        plain.loss_fnt.register_forward_pre_hook(lambda module, args: seen.append(args))
        plain(*batch)
        keep = torch.tensor([x for one in chosen for x in meant(one["hts"], stage)])
        due = AdaptiveThresholdLoss()(seen[0][0][keep], seen[0][1][keep])
        assert not torch.allclose(due, AdaptiveThresholdLoss()(*seen[0]))  # negative control
    else:
        due = plain(*batch)
        due = due if isinstance(due, torch.Tensor) else due[0]
    torch.testing.assert_close(loss, due)
    loss.backward()
    due.backward()
    for (name, mine), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        if other.grad is not None and mine.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, msg=name)
    assert model.bilinear.weight.grad.abs().sum() > 0


@kinds
def test_counts_are_learned_beside_the_classifier(cls, spec):
    model = tiny.model(cls=cls).double().train()
    model.requires_grad_(True)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    wrap_model(model, stage="identify", adapter=spec, fast=False)
    chosen = stage_features(model, "identify", spec)
    reads = []
    model.bilinear.register_forward_pre_hook(lambda module, args: reads.append(args[0]))
    model.eval()  # no dropout, so that the slow way sees the same
    output = model(*wrap_collate(collate_fn, adapter=spec)(chosen))
    loss = output if isinstance(output, torch.Tensor) else output[0]
    head = getattr(model, wrap_state(model).head)
    rows, labels = [], []
    for d, one in enumerate(chosen):
        for k, (h, t) in enumerate(one["hts"]):
            if h != t:
                flat = sum(len(other["hts"]) for other in chosen[:d]) + k
                rows.append(reads[0][d, h, t] if spec.all_pairs else reads[0][flat])
                labels.append(one["labels"][k])
    due = CountLoss()(head(torch.stack(rows)), torch.from_numpy(np.stack(labels)))
    torch.testing.assert_close(loss, due)
    loss.backward()
    assert head.output.weight.grad.abs().sum() > 0
    assert model.model.embeddings.word_embeddings.weight.grad.abs().sum() > 0

    counts = score_counts(model, chosen, wrap_collate(collate_fn, adapter=spec), **HOW)
    assert [len(part) for part in counts] == [12, 12, 6]
    with torch.no_grad():
        torch.testing.assert_close(
            np.concatenate(counts), CountLoss().get_label(head(torch.stack(rows))).float().numpy(), check_dtype=False
        )
    unwrap_model(model)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@kinds
@pytest.mark.parametrize("stage", STAGES)
def test_wrapping_is_undone(cls, spec, stage):
    model = tiny.model(cls=cls)
    batch = collate_fn(features(spec))
    torch.manual_seed(0)
    before = model(*batch)
    unwrap_model(copy.deepcopy(wrap_model(model, stage=stage, adapter=spec)))
    unwrap_model(model)
    torch.manual_seed(0)
    after = model(*batch)
    for mine, other in zip(
        before if isinstance(before, tuple) else [before], after if isinstance(after, tuple) else [after], strict=True
    ):
        torch.testing.assert_close(mine, other)
    assert not hasattr(model, "bilinear_counts")


def test_logits_that_are_read_in_the_wrong_place_are_noticed():
    model = wrap_model(tiny.model(cls=Behind), adapter=replace(BEHIND, logits="classifier"))
    with pytest.raises(SegDREError, match="pairs of the first batch the model itself predicts"):
        score_relations(model, features(BEHIND), [0, 1, 2], wrap_collate(collate_fn, adapter=BEHIND), **HOW)
    model = wrap_model(tiny.model(cls=Cosine), adapter=replace(COSINE, logits="classifier"))
    with pytest.raises(SegDREError, match=r"expected predictions \[30, 12\]"):
        score_relations(model, features(COSINE), [0, 1, 2], wrap_collate(collate_fn, adapter=COSINE), **HOW)


def test_a_batch_without_its_pairs_is_refused():
    model = wrap_model(tiny.model(cls=Square), stage="dense", adapter=SQUARE)
    with pytest.raises(SegDREError, match="stage dense got a batch without its pairs"):
        model(*wrap_collate(collate_fn, adapter=SQUARE)(features(SQUARE)))


def test_what_does_not_go_together_is_refused():
    with pytest.raises(SegDREError, match="all_pairs needs a loss module"):
        wrap_model(tiny.model(cls=Risk), adapter=replace(RISK, all_pairs=True))
    with pytest.raises(SegDREError, match="risk computes itself"):
        wrap_model(tiny.model(cls=Risk), adapter=RISK, config=tiny.SegConfig(loss="hinge-abl"))


class Unlabelled(Risk):
    """Leaves the loss to its train script, as HingeABL does."""

    def forward(self, input_ids, attention_mask, entity_pos=None, hts=None):
        return super().forward(input_ids, attention_mask, None, entity_pos, hts)


def test_counts_need_labels():
    spec = replace(RISK, ignored=frozenset({"labels"}))
    with pytest.raises(SegDREError, match=r"Unlabelled.forward: no argument 'labels'"):
        wrap_model(tiny.model(cls=Unlabelled), adapter=spec)
    model = wrap_model(tiny.model(cls=Risk), stage="identify", adapter=RISK).train()
    batch = collate_fn(features(RISK))
    with pytest.raises(SegDREError, match="stage identify is trained without labels"):
        model(batch[0], batch[1], None, *batch[3:])


class TestFields:
    """Fields with another shape than one entry for each pair."""

    SPEC = replace(tiny.ATLOP, name="fields", square_fields=("graph",), positive_fields=("evidence",))

    def feature(self, kind=list):
        one = tiny.feature(40)
        n = len(one["hts"])
        for row in one["labels"][::3]:
            row[:] = [1] + [0] * (tiny.CLASSES - 1)
        positive = [k for k, row in enumerate(one["labels"]) if any(row[1:])]
        graph = np.arange(n * n).reshape(n, n)
        return one | {"graph": graph.tolist() if kind is list else kind(graph), "evidence": positive}

    @pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
    def test_rows_and_columns(self, kind):
        one = self.feature(kind)
        keep = np.asarray([k % 2 == 0 for k in range(12)])
        made = keep_pairs(one, keep, self.SPEC)
        assert np.asarray(made["graph"]).tolist() == [[12 * i + j for j in range(0, 12, 2)] for i in range(0, 12, 2)]
        assert made["evidence"] == [k for k in one["evidence"] if k % 2 == 0]
        assert made["evidence"]

    def test_refuses_other_shapes(self):
        keep = np.ones(12, dtype=bool)
        with pytest.raises(SegDREError, match="graph: expected 12 x 12 entries"):
            keep_pairs(self.feature() | {"graph": [[0] * 11] * 12}, keep, self.SPEC)
        with pytest.raises(SegDREError, match="evidence: expected 7 entries, one for each pair with a relation, got 1"):
            keep_pairs(self.feature() | {"evidence": [0]}, keep, self.SPEC)

    @pytest.mark.parametrize("spec", [SPEC, SQUARE], ids=["square fields", "all pairs"])
    def test_documents_whose_pairs_interact_are_not_cut(self, spec):
        assert [len(part["hts"]) for parts, _ in batches([self.feature()], spec, 1, 5) for part in parts] == [12]
        parts = [len(part["hts"]) for parts, _ in batches([self.feature()], tiny.ATLOP, 1, 5) for part in parts]
        assert parts == [5, 5, 2]


def test_parts_of_a_batch_that_forward_does_not_take():
    spec = replace(
        tiny.ATLOP, name="more", batch=(*tiny.ATLOP.batch, "titles", "square"), ignored=frozenset({"titles"})
    )
    spec = replace(spec, optional=frozenset({"square"}), logits="loss")
    model = tiny.model(cls=Behind)

    def with_titles(batch):
        return (*collate_fn(batch), [one["title"] for one in batch])

    def with_square(batch):
        return (*with_titles(batch), [np.eye(len(one["hts"])).tolist() for one in batch])

    wrap_model(model, adapter=spec)
    found = [
        score_relations(model, features(spec), [0, 1, 2], wrap_collate(collate, adapter=spec), **HOW).margin
        for collate in (with_titles, with_square)
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)
    with pytest.raises(SegDREError, match=r"a batch of more has 7 parts .* got 5 parts"):
        wrap_collate(collate_fn, adapter=spec)(features(spec))


class Evident(Kind):
    """Learns evidence from pairs with a relation, and predicts it on request, where a batch has sentences (Eider)."""

    SENTENCES = 3

    def __init__(self, *args, **how):
        super().__init__(*args, **how)
        self.evidence = nn.Linear(self.bilinear.in_features, self.SENTENCES)

    def forward(
        self, input_ids, attention_mask, labels=None, entity_pos=None, hts=None, rows=None, sents=None, ask=False
    ):
        pairs = self.pair_features(input_ids, attention_mask, entity_pos, hts)
        logits, found = self.bilinear(pairs), self.evidence(pairs)
        output = (self.loss_fnt.get_label(logits, num_labels=self.num_labels),)
        if ask:
            output += (found > torch.tensor(sents).sum(),)
        if labels is None:
            return output
        loss = self.loss_fnt(logits, gold(labels))
        if rows is not None:
            own = found[gold(labels)[:, 1:].any(dim=1)]
            loss = loss + F.binary_cross_entropy_with_logits(own, torch.cat([torch.tensor(r) for r in rows]).float())
        return loss, *output


class TestEvidenceOfPositivePairs:
    """Gold evidence has an entry for each pair with a relation, of which a stage's batch may have none."""

    SPEC = replace(
        tiny.ATLOP,
        name="evident",
        batch=(*tiny.ATLOP.batch, "rows", "sents"),
        optional=frozenset({"rows", "sents"}),
        optional_constants={"ask": True},
        not_for_prediction=frozenset({"labels", "rows"}),
        positive_fields=("rows",),
        evidence=1,
    )

    def prepared(self, model, positive):
        """Features of stage dense; the salient entity's pairs have relations if ``positive``."""
        made = features(self.SPEC)
        for one in made:
            for pair, row in zip(one["hts"], one["labels"], strict=True):
                row[:] = [0, 1, *row[2:]] if positive or 0 not in pair else [1] + [0] * (tiny.CLASSES - 1)
            one["rows"] = [[1, 0, 1] for row in one["labels"] if any(row[1:])]
        documents = [document(one["title"]) for one in made]
        return prepare_features(made, documents, model, salient=[(0,)] * len(made)).features

    @staticmethod
    def collate(batch, sentences=True):
        more = ([one["rows"] for one in batch], [[0.0] for _ in batch]) if sentences else ()
        return (*collate_fn(batch), *more)

    @pytest.mark.parametrize("positive", [True, False])
    def test_a_batch_without_them_is_trained_without(self, positive):
        model = wrap_model(tiny.model(cls=Evident), stage="dense", adapter=self.SPEC).train()
        batch = wrap_collate(self.collate, adapter=self.SPEC)(self.prepared(model, positive))
        assert any(map(len, batch[5])) == positive
        loss = model(*batch)[0]
        loss.backward()
        assert loss.isfinite()
        assert (model.evidence.weight.grad is not None) == positive
        if not positive:  # negative control: what the model does by itself
            with pytest.raises(ValueError, match="size"):
                unwrap_model(model)(*batch)

    def test_features_without_gold_evidence(self):
        model = wrap_model(tiny.model(cls=Evident), stage="dense", adapter=self.SPEC)
        without = [one | {"rows": None} for one in self.prepared(model, True)]
        loss = model(*wrap_collate(self.collate, adapter=self.SPEC)(without))[0]
        due = model(*wrap_collate(collate_fn, adapter=self.SPEC)(without))[0]
        assert loss == due

    @pytest.mark.parametrize("sentences", [True, False])
    def test_evidence_is_predicted_where_a_batch_has_sentences(self, sentences):
        model = wrap_model(tiny.model(cls=Evident), stage="dense", adapter=self.SPEC)
        collate = wrap_collate(lambda batch: self.collate(batch, sentences), adapter=self.SPEC)
        found = score_relations(model, self.prepared(model, True), [0, 1, 2], collate, **HOW)
        assert found.evidence.shape == (len(found.margin), Evident.SENTENCES if sentences else 0)
        assert found.evidence.any() == sentences
