"""Stage sparse: branches go into the encoder's windows and out again, compared with a slow version window by window."""

import pytest
import slow
import tiny
import torch

from segdre_plugin import SegDREError, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones.attention import check_encoder
from segdre_plugin.backbones.hooks import BranchAppender, assemble, wrap_state
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.backbones.windows import sliding

collate = wrap_collate(collate_fn, adapter="atlop")


def document(n=50, n_branches=3, *, kind="bert", seed=0, mentions=None, link=False):
    """Make a feature, the branches of its entity 0, and the feature with these branches injected."""
    plain = tiny.feature(n, kind=kind, seed=seed, mentions=mentions)
    texts = tiny.branches(n_branches, seed=seed)
    return plain, texts, tiny.injected(plain, texts, kind=kind, link=link)


def slow_logits(model, kind, plain, texts, link=False, cut=slow.windows):
    """Encode a document window by window with the rule for pairs of tokens, and let the plain model go on from there.

    The spans count no start token, windows do.
    """
    special, ids, n_end = tiny.SPECIAL[kind], plain["input_ids"], {"bert": 1, "roberta": 2}[kind]
    form, parts = check_encoder(model.model, kind, 512), []
    for window_ids, kept, offset in cut(ids, special["cls"], special["sep"], n_end):

        def spans(entity, kept=kept, offset=offset):
            inside = range(offset, offset + kept[1] - kept[0])
            moved = sorted((a + 1, b + 1) for a, b in plain["entity_pos"][entity])
            shift = offset - kept[0]
            return [(a - shift, min(b, inside.stop) - shift) for a, b in moved if a in inside]

        anchors = spans(0)
        branches = [tokens for tokens, _ in texts] if anchors else []
        linked = [spans(entity) if link else [] for _, entity in texts]
        tree = slow.tree(window_ids, anchors, branches, 512, tiny.OFFSET[kind])
        tokens = slow.appended(*tree, anchors)
        states, attention = slow.encode(model.model, form, tokens, slow.matrix(tokens, anchors, linked))
        n = len(window_ids)
        parts.append((states[:n], attention[:, :n, :n], kept, offset))
    states, attention = slow.merge(parts, len(ids))
    plain_model = tiny.twin(model)
    plain_model.encode = lambda *_: (states[None], attention[None])
    return tiny.logits(plain_model, collate_fn([plain]))


@pytest.mark.parametrize("kind", tiny.KINDS)
class TestOneWindow:
    def test_equals_the_slow_version(self, kind):
        model = tiny.model(kind)
        plain, texts, made = document(kind=kind)
        due = slow_logits(model, kind, plain, texts).detach()
        wrap_model(model, stage="sparse")
        torch.testing.assert_close(tiny.logits(model, collate([made])), due, rtol=0, atol=1e-5)

    def test_link_equals_the_slow_version(self, kind):
        model = tiny.model(kind)
        plain, texts, made = document(kind=kind, link=True)
        due = slow_logits(model, kind, plain, texts, link=True).detach()
        assert (slow_logits(model, kind, plain, texts) - due).abs().max() > 1e-4  # the link shows
        wrap_model(model, stage="sparse")
        torch.testing.assert_close(tiny.logits(model, collate([made])), due, rtol=0, atol=1e-5)

    def test_without_branches_it_is_the_base(self, kind):
        model = tiny.model(kind)
        made = [document(n, 0, kind=kind, seed=n) for n in (40, 61)]
        due = tiny.logits(model, collate_fn([plain for plain, _, _ in made]))
        wrap_model(model, stage="sparse")
        out = tiny.logits(model, collate([feature for _, _, feature in made]))
        torch.testing.assert_close(out, due, rtol=0, atol=1e-6)

    def test_with_branches_it_is_not(self, kind):
        model = tiny.model(kind)
        plain, _, made = document(kind=kind)
        due = tiny.logits(model, collate_fn([plain]))
        wrap_model(model, stage="sparse")
        assert (tiny.logits(model, collate([made])) - due).abs().max() > 1e-3

    def test_gradients_reach_the_branches(self, kind):
        model = wrap_model(tiny.model(kind).train(), stage="sparse")
        _, texts, made = document(kind=kind)
        loss, _ = model(*collate([made]))
        loss.backward()
        gradient = model.model.embeddings.word_embeddings.weight.grad.abs().sum(1)
        used = {token for tokens, _ in texts for token in tokens}
        assert all(gradient[token] > 0 for token in used)
        assert all(gradient[token] == 0 for token in set(tiny.BRANCH_IDS) - used)
        assert all(p.grad.abs().sum() > 0 for p in model.model.encoder.layer[0].attention.self.query.parameters())

    def test_mixed_lengths_equal_one_by_one(self, kind):
        model = wrap_model(tiny.model(kind), stage="sparse")
        made = [document(n, k, kind=kind, seed=n)[2] for n, k in ((40, 0), (61, 5), (33, 1), (50, 9))]
        together = tiny.logits(model, collate(made))
        alone = torch.cat([tiny.logits(model, collate([one])) for one in made])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


# mention starts of the salient entity in a document of 700 tokens; windows hold 0 to 510 and 189 to 699
LONG = {
    "in both windows": [20, 300, 650],
    "in the overlap only": [250],
    "in the first window only": [30, 100],
    "in the second window only": [660, 600],
    "cut by the end of the first window": [507],
    "in neither": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("kind", tiny.KINDS)
@torch.no_grad()
def test_two_windows_equal_the_slow_version(kind, name):
    model = tiny.model(kind)
    others = [[(5, 8), (400, 403)], [(150, 154)], [(680, 683)]]
    mentions = [[(start, start + 4) for start in LONG[name] or [2000]], *others]  # 2000: truncated away
    plain, texts, made = document(700, 6, kind=kind, mentions=mentions)
    due = slow_logits(model, kind, plain, texts)
    without = tiny.logits(model, collate_fn([plain]))
    wrap_model(model, stage="sparse")
    out = tiny.logits(model, collate([made]))
    torch.testing.assert_close(out, due, rtol=0, atol=1e-5)
    assert ((out - without).abs().max() > 3e-4) == bool(LONG[name])


# mention starts of the salient entity in a document of 100 tokens; five windows of 32 begin at these
FIRSTS = (0, 17, 34, 51, 69)
SLID = {"in all windows": [2, 20, 40, 60, 90], "in the middle one": [45], "cut by the end of a window": [28]}


@pytest.mark.slow
@pytest.mark.parametrize("name", SLID)
@pytest.mark.parametrize("kind", tiny.KINDS)
@torch.no_grad()
def test_sliding_windows_equal_the_slow_version(kind, name):
    backbone = sliding(tiny.another(window=32))
    mentions = [[(start, start + 3) for start in SLID[name]], [(5, 8), (70, 73)], [(50, 52)], [(93, 95)]]
    model, plain, texts = tiny.model(kind), tiny.feature(100, kind=kind, mentions=mentions), tiny.branches(6)
    made = tiny.injected(plain, texts, kind=kind, backbone=backbone)
    cut = slow.sliding(FIRSTS, 32)
    due, without = (slow_logits(model, kind, plain, branches, cut=cut) for branches in (texts, []))
    assert (
        slow_logits(model, kind, plain, texts) - due
    ).abs().max() > 1e-3  # one window of all tokens is another thing
    for stage, feature, expected in (("sparse", made, due), ("base", plain, without)):
        wrap_model(model, stage=stage, adapter=backbone)
        out = tiny.logits(model, wrap_collate(collate_fn, adapter=backbone)([feature]))
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
        unwrap_model(model)
    assert (due - without).abs().max() > 3e-4


@torch.no_grad()
def test_long_and_short_documents_in_one_batch():
    model = wrap_model(tiny.model(), stage="sparse")
    made = [document(n, k, seed=n)[2] for n, k in ((40, 2), (530, 3), (512, 0), (600, 1))]
    together = tiny.logits(model, collate(made))
    alone = torch.cat([tiny.logits(model, collate([one])) for one in made])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def shifted(batch):
    batch[0][0, 1:6] = batch[0][0, 2:7].clone()
    return batch


def swapped(batch):
    batch[3].injections.reverse()
    return batch


def one_less(batch):
    batch[3].injections.pop()
    return batch


def cut(batch):
    return (batch[0][:, :20], batch[1][:, :20], *batch[2:])


class TestRefuses:
    @pytest.mark.parametrize("spoil", [shifted, swapped, one_less, cut])
    def test_windows_that_are_not_the_injections(self, spoil):
        model = wrap_model(tiny.model(), stage="sparse")
        batch = spoil(collate([document(n, seed=n)[2] for n in (40, 61)]))
        with pytest.raises(
            SegDREError, match=r"the encoder got 2 windows of \d\d tokens that are not the [12] windows"
        ):
            model(*batch)

    @pytest.mark.parametrize("how", [lambda one: collate_fn([one]), lambda one: collate([one])])
    def test_a_plain_batch(self, how):
        model = wrap_model(tiny.model(), stage="sparse")
        with pytest.raises(SegDREError, match="stage sparse got a batch without injections"):
            model(*how(document()[0]))

    def test_a_prepared_batch_that_lost_its_injections(self):
        model = wrap_model(tiny.model(), stage="sparse")
        batch = collate([document()[2]])
        with pytest.raises(SegDREError, match="without injections"):
            model(*batch[:3], list(batch[3]), batch[4])


class TestState:
    def test_is_clean_after_an_error(self, monkeypatch):
        model = wrap_model(tiny.model(), stage="sparse")
        batch = collate([document()[2]])
        due = tiny.logits(model, batch)

        def fail(*_, **__):
            raise RuntimeError("out of memory")

        for owner, name in ((model, "get_hrt"), (model.model.encoder, "forward")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(RuntimeError, match="out of memory"):
                    model(*batch)
            state = wrap_state(model)
            assert (state.injections, state.width) == (None, 0)
            assert torch.equal(tiny.logits(model, batch), due)

    def test_the_encoder_on_its_own_is_plain(self):
        model = tiny.model()
        ids, mask = collate_fn([document()[0]])[:2]
        due = model.model(input_ids=ids, attention_mask=mask).last_hidden_state
        wrap_model(model, stage="sparse")
        model(*collate([document()[2]]))
        torch.testing.assert_close(model.model(input_ids=ids, attention_mask=mask).last_hidden_state, due)

    def test_arguments_by_place_and_by_name(self):
        model = wrap_model(tiny.model(), stage="sparse")
        ids, mask, _, positions, pairs = collate([document()[2]])
        named = model(input_ids=ids, attention_mask=mask, entity_pos=positions, hts=pairs)
        assert torch.equal(model(ids, mask, None, positions, pairs)[0], named[0])

    def test_a_deep_copy_is_a_wrapped_model_of_its_own(self):
        model = wrap_model(tiny.model(), stage="sparse")
        batch = collate([document()[2]])
        due = tiny.logits(model, batch)
        copy = tiny.twin(model)
        assert torch.equal(tiny.logits(copy, batch), due)
        unwrap_model(copy)
        assert not copy._forward_pre_hooks
        assert not copy.model._forward_hooks
        assert torch.equal(tiny.logits(model, batch), due)


def test_assemble():
    one, two = (document(n, k, seed=n)[2]["segdre"][0] for n, k in ((30, 4), (34, 2)))
    node_ids, position_ids, branch_ids, visibility = assemble([one, two], 37)
    assert node_ids.shape == position_ids.shape == branch_ids.shape == (2, max(len(one.input_ids), len(two.input_ids)))
    for row, injection, n in ((0, one, 30), (1, two, 34)):
        last = len(injection.input_ids)
        for made, source in ((node_ids, injection.node_ids), (position_ids, injection.position_ids)):
            assert made[row, :last].tolist() == source.tolist()
            assert not made[row, last:].any()
        assert branch_ids[row, n:last].tolist() == injection.input_ids[n:].tolist()
        assert (branch_ids[row] >= 0).sum() == last - n
        size = len(injection.visibility)
        assert visibility[row, :size, :size].tolist() == injection.visibility.tolist()
        assert visibility[row].sum() == injection.visibility.sum()
    assert assemble([one], 99)[0].shape == (1, 99)


@pytest.mark.slow
@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("kind", tiny.KINDS)
def test_branches_in_the_padding_change_nothing(kind, fast):
    """A document has the same logits and gradients alone and beside a longer one, whose padding holds its branches."""
    short, long = (
        tiny.injected(tiny.feature(n, kind=kind, seed=n), tiny.branches(5, seed=n), kind=kind) for n in (34, 80)
    )
    model = wrap_model(tiny.model(kind).double(), stage="sparse", fast=fast)
    alone, together = collate([short]), collate([long, short])
    assert len(short["segdre"][0].input_ids) < together[0].shape[1]  # all of them
    due, found = tiny.logits(model, alone), tiny.logits(model, together)[-len(short["hts"]) :]
    torch.testing.assert_close(found, due)
    grads = []
    for logits in (due, found):
        model.zero_grad()
        logits.square().sum().backward()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(grads[1], grads[0])
    plain = collate(
        [
            {k: v for k, v in one.items() if k != "segdre"} | {"segdre": none}
            for one, none in (
                (long, tiny.injected(long, [], kind=kind)["segdre"]),
                (short, tiny.injected(short, [], kind=kind)["segdre"]),
            )
        ]
    )
    assert (tiny.logits(model, plain)[-len(short["hts"]) :] - due).abs().max() > 1e-3  # negative control: they do act


def test_mask_is_built_on_the_device():
    """Only integers travel: with parameters on the meta device the whole visible matrix is made there."""
    made = [document(n, 2, seed=n)[2] for n in (40, 61)]
    batch = collate(made)
    host = assemble(batch[3].injections, 61)
    assert sum(part.numel() for part in host) < 61**2
    model = wrap_model(tiny.model(), stage="sparse")
    state = wrap_state(model)
    state.injections = batch[3].injections
    _, changed = BranchAppender(state)(model.model, (), {"input_ids": batch[0], "attention_mask": batch[1]})
    total = max(len(injection.input_ids) for injection in batch[3].injections)
    assert changed["input_ids"].shape == changed["position_ids"].shape == (2, total)
    assert changed["attention_mask"].shape[-2:] == (total, total)
    assert changed["attention_mask"].dtype == torch.float32
