"""Small made-up documents: by hand, and drawn by hypothesis."""

from hypothesis import strategies as st


def document(mentions, triples, title="doc"):
    """A DocRED document with the given number of mentions of each entity."""
    return {
        "title": title,
        "vertexSet": [[{"name": f"e{e}", "sent_id": 0}] * n for e, n in enumerate(mentions)],
        "labels": [{"h": h, "t": t, "r": r, "evidence": []} for h, t, r in triples],
        "sents": [],
    }


@st.composite
def documents(draw):
    mentions = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    entity = st.integers(0, len(mentions) - 1)
    return document(mentions, draw(st.lists(st.tuples(entity, entity, st.sampled_from("pqr")), max_size=8)))


@st.composite
def scored_pairs(draw):
    n = draw(st.integers(1, 6))
    entity = st.integers(0, n - 1)
    pairs = draw(st.lists(st.tuples(entity, entity), max_size=10))
    counts = draw(st.lists(st.integers(0, 5), min_size=len(pairs), max_size=len(pairs)))
    return counts, pairs, n
