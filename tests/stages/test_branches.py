"""Which triples are injected, and in which words."""

import pytest

from segdre_plugin import SegConfig, SegDREError, Verbaliser
from segdre_plugin.stages.branches import entity_name, gold_dense_triples, owner

DOCUMENT = {
    "title": "A town",
    "vertexSet": [
        [{"name": "Varn"}, {"name": "Varn Hill"}, {"name": "Hill Varn"}],
        [{"name": "Olo Bek"}],
        [{"name": "Ruma"}],
    ],
}
NAMES = {"P1": "mayor", "P2": "member of"}


class Tokenizer:
    """Cuts words into pieces of three characters; a piece's id is its place among the pieces seen."""

    def __init__(self):
        self.seen, self.calls = [], []

    def tokenize(self, word):
        self.calls.append(word)
        return [word[i : i + 3] for i in range(0, len(word), 3)]

    def convert_tokens_to_ids(self, pieces):
        self.seen += [piece for piece in pieces if piece not in self.seen]
        return [self.seen.index(piece) for piece in pieces]

    def decode(self, ids):
        return [self.seen[i] for i in ids]


def verbaliser(**settings):
    return Verbaliser(Tokenizer(), NAMES, SegConfig(**settings))


FROM, TO = (0, "P2", 1), (2, "P1", 0)


@pytest.mark.parametrize(
    ("triple", "settings", "pieces", "named"),
    [
        (FROM, {}, "mem ber of Olo Bek", 1),
        (TO, {}, "Rum a may or", 2),
        (FROM, {"template_from": "{tail} : {relation}"}, "Olo Bek : mem ber of", 1),
        (TO, {"template_to": "({head}) has {relation} !"}, "(Ru ma) has may or !", 2),
        (TO, {"template_from": "{tail}"}, "Rum a may or", 2),
    ],
)
def test_words_of_a_branch(triple, settings, pieces, named):
    made = verbaliser(**settings)
    tokens, entity = made.branch(DOCUMENT, 0, triple)
    assert made.tokenizer.decode(tokens) == pieces.split()
    assert entity == named


def test_an_entity_is_called_by_its_longest_mention_the_first_of_equals():
    assert [entity_name(DOCUMENT, e) for e in range(3)] == ["Varn Hill", "Olo Bek", "Ruma"]
    made = verbaliser()
    tokens, _ = made.branch(DOCUMENT, 1, (0, "P1", 1))
    assert made.tokenizer.decode(tokens) == ["Var", "n", "Hil", "l", "may", "or"]


@pytest.mark.parametrize(
    ("alpha", "n", "due"),
    [
        (0, 9, 0),
        (0.01, 9, 1),
        (0.5, 1, 1),
        (0.5, 4, 2),
        (0.5, 5, 3),
        (1, 7, 7),
        (0.3, 0, 0),
        (0.15, 20, 3),
        (0.55, 100, 55),
    ],
)
def test_alpha_takes_the_best_share_rounded_up(alpha, n, due):
    triples = [(0, ("P1", "P2")[k % 2], 1 + k % 2) for k in range(n)]
    made = verbaliser(alpha=alpha)(DOCUMENT, 0, triples)
    assert made.triples == triples[:due]
    assert len(made.branches) == due
    assert made.left_out == 0


# branches of 5 (FROM) and 4 (TO) tokens
@pytest.mark.parametrize(
    ("budget", "fit"), [(0, 0), (4, 0), (5, 1), (8, 1), (9, 2), (13, 2), (14, 3), (18, 4), (512, 4)]
)
def test_budget_cuts_and_counts(budget, fit):
    triples = [FROM, TO, FROM, TO]
    made = verbaliser(branch_budget=budget)(DOCUMENT, 0, triples)
    assert made.triples == triples[:fit]
    assert made.left_out == 4 - fit
    assert sum(len(tokens) for tokens, _ in made.branches) <= budget


def test_budget_keeps_the_order_of_scores():
    # the second triple would not fit; a shorter one behind it does not overtake
    made = verbaliser(branch_budget=9)(DOCUMENT, 0, [FROM, FROM, TO])
    assert made.triples == [FROM]
    assert made.left_out == 2


def test_words_are_tokenised_once():
    made = verbaliser()
    made(DOCUMENT, 0, [FROM] * 5)
    assert sorted(made.tokenizer.calls) == ["Bek", "Olo", "member", "of"]


@pytest.mark.parametrize(
    ("triple", "message"),
    [
        ((1, "P1", 2), r"document 'A town': the triple \(1, 'P1', 2\) does not involve the salient entity 0"),
        ((0, "P9", 1), "document 'A town': relation 'P9' has no name"),
    ],
)
def test_refuses(triple, message):
    with pytest.raises(SegDREError, match=message):
        verbaliser()(DOCUMENT, 0, [triple])


class TestSeveral:
    both = (1, "P2", 2)

    @pytest.mark.parametrize(("chain", "due"), [((1, 2), 1), ((2, 1), 2), ((0, 2, 1), 2), (2, 2)])
    def test_a_triple_hangs_on_the_first_salient_entity_in_it(self, chain, due):
        assert owner(chain, self.both) == due
        made = verbaliser()
        injected = made(DOCUMENT, chain, [self.both])
        assert injected.owners == [due]
        ((tokens, named),) = injected.branches
        # the branch of the head says "member of Ruma", that of the tail "Olo Bek member of"
        words = "mem ber of Rum a" if due == 1 else "Olo Bek mem ber of"
        assert made.tokenizer.decode(tokens) == words.split()
        assert named == 3 - due

    def test_order_and_budget_are_those_of_all_triples_together(self):
        made = verbaliser(branch_budget=14)(DOCUMENT, (0, 1), [self.both, FROM, TO])
        assert made.triples == [self.both, FROM, TO]
        assert made.owners == [1, 0, 0]
        assert verbaliser(branch_budget=13)(DOCUMENT, (0, 1), [self.both, FROM, TO]).left_out == 1

    def test_refuses_a_triple_of_none_of_them(self):
        with pytest.raises(SegDREError, match=r"'A town': the triple \(1, 'P2', 2\) does not .* entity 0\n"):
            verbaliser()(DOCUMENT, (0,), [self.both])
        with pytest.raises(SegDREError, match=r"does not involve the salient entity 0 or 3\n"):
            owner((0, 3), self.both)

    def test_gold_triples_involve_any_of_them(self):
        triples = [FROM, TO, self.both, FROM]
        document = DOCUMENT | {"labels": [{"h": h, "r": r, "t": t} for h, r, t in triples]}
        assert gold_dense_triples(document, (1, 2)) == [FROM, TO, self.both]
        assert gold_dense_triples(document, (0,)) == gold_dense_triples(document, 0) == [FROM, TO]
        assert gold_dense_triples(document, ()) == gold_dense_triples(document, None) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -0.1}, "alpha is -0.1"),
        ({"alpha": 1.1}, "alpha is 1.1"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"branch_budget": -1}, "branch_budget is -1"),
        ({"hidden": 0}, "hidden is 0"),
        ({"template_from": "{object}"}, "template_from is '{object}': 'object' is not a plain field"),
        ({"template_to": "{0}"}, "template_to is '{0}'"),
        ({"template_to": "{head"}, "template_to is '{head'"),
        ({"template_to": "{head.name}"}, "template_to is '{head.name}'"),
        ({"template_to": "{head[x]}"}, r"template_to is '{head\[x\]}'"),
        ({"template_to": "{tail:>200000000}"}, "'tail' is not a plain field"),
        ({"template_to": "{tail!r}"}, "'tail' is not a plain field"),
        ({"template_to": "{}"}, "'' is not a plain field"),
        ({"template_to": " "}, "template_to is empty"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SegDREError, match=message):
        SegConfig(**settings)
