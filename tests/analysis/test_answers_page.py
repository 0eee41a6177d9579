"""The page of ``segdre predict --html``: safe against what texts hold, and arrows that join the right boxes."""

import math
from html.parser import HTMLParser

import browser
import pytest

from segdre_plugin.analysis.report import answers
from segdre_plugin.analysis.report.answers import answers_page
from segdre_plugin.analysis.report.graph import HEIGHT, draw_graph

EVIL = """</svg></style><script>alert("1")</script><img src=x onerror='a'>&amp;{{ 7 * 7 }}"""


def triple(h, t, relation="country", names=("Ina", "Odo", "Varn")):
    words = {"head": names[h % len(names)], "relation": relation, "tail": names[t % len(names)]}
    return {"h_idx": h, "r": "P17", "t_idx": t} | words | {"score": 2.25 - h, "source": ["base"]}


def answered(n=1, title="A", name="Ina", relation="country", **more):
    names = (name, "Odo", "Varn")
    sents = [[name, "met", "Odo", "in", EVIL, "."], ["Varn", "slept", "."]]
    mentions = [(0, 0), (0, 2), (1, 0)]
    document = {
        "title": title,
        "sents": sents,
        "vertexSet": [
            [{"name": names[e], "sent_id": s, "pos": [w, w + 1], "type": EVIL}] for e, (s, w) in enumerate(mentions)
        ],
    }
    triples = [triple(0, 1, relation, names), triple(1, 0, relation, names), triple(1, 0, "second", names)]
    found = {"title": title, "salient": {"entity": 0, "name": name, "count": 2.0}, "triples": triples, "injected": []}
    return [(document, found | {"index": i, "unseen_entities": [2]} | more) for i in range(n)]


class Tags(HTMLParser):
    """What a page consists of: tags, and attributes that name something to load or to run."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.active = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.active += [name for name, _ in attributes if name.startswith("on") or name in ("src", "srcdoc")]

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def page(tmp_path):
    def write(pairs):
        path = tmp_path / "page.html"
        answers_page(path, [], replace=True)(pairs)
        return path.read_text(encoding="utf-8")

    return write


def test_markup_of_texts_stays_text(page):
    plain = Tags(page(answered()))
    evil = Tags(page(answered(title=EVIL, name=EVIL, relation=EVIL)))
    assert evil.tags == plain.tags
    assert "script" not in evil.tags
    assert evil.active == []
    shown = "".join(evil.texts)
    assert shown.count(EVIL) >= 6  # title, text, salient entity, graph, table
    assert "49" not in shown


def test_documents_without_triples_and_beyond_the_shown_ones(page, monkeypatch):
    monkeypatch.setattr(answers, "SHOWN", 2)
    empty = {"salient": None, "triples": []}
    text = page(answered(5, **empty))
    assert text.count("<article>") == text.count("No triple was predicted.") == 2
    assert "3 more documents are in the output only" in text
    assert "1 of them beyond what the encoder reads" in text
    assert "<svg" not in text
    chain = [{"entity": e, "name": n, "count": None} for e, n in ((0, "Ina"), (1, "Odo"))]
    assert page(answered(salient=chain)).count('<g class="salient">') == 2


def test_evidence_has_a_column_where_there_is_some(page):
    assert ">evidence<" not in page(answered())
    assert ">evidence<" in page(answered(triples=[triple(0, 1), triple(1, 2) | {"evidence": [0, 1]}]))


@pytest.mark.parametrize("salient", [[0], [5], []])
def test_arrows_start_and_end_at_their_boxes(salient):
    names = [f"entity {i}" * (1 + i % 4) for i in range(9)]
    triples = [triple(i, (i * i + 1) % 9, names=names) for i in range(9) if i != (i * i + 1) % 9]
    triples += [triple(3, 4, names=names), triple(4, 3, names=names), triple(4, 3, "again", names=names)]
    graph = draw_graph(triples, salient)
    nodes = {node.name: node for node in graph.nodes}
    drawn = []
    for arrow in graph.arrows:
        start, end = (min(nodes.values(), key=lambda node, p=p: _distance(node, p)) for p in (arrow.start, arrow.end))
        assert max(_distance(start, arrow.start), _distance(end, arrow.end)) < 6
        drawn += [(start.name, relation, end.name) for relation in arrow.relations]
    assert sorted(drawn) == sorted((t["head"], t["relation"], t["tail"]) for t in triples)
    left, top, width, height = graph.box
    for node in graph.nodes:
        assert left <= node.at.x - node.width / 2 <= node.at.x + node.width / 2 <= left + width
        assert top <= node.at.y - HEIGHT / 2 <= node.at.y + HEIGHT / 2 <= top + height
    assert [node.name for node in graph.nodes if node.at == (0, 0)] == [names[e] for e in salient]
    labels = [arrow.label for arrow in graph.arrows]
    assert min(math.dist(a, b) for i, a in enumerate(labels) for b in labels[:i]) > 10


def _distance(node, point):
    """How far a point is from the outline of a node's box."""
    x, y = abs(point.x - node.at.x) - node.width / 2, abs(point.y - node.at.y) - HEIGHT / 2
    return max(x, y) if max(x, y) > 0 else -max(x, y)


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1400, 400])
def test_in_a_browser(page, tmp_path, width):
    page(answered(2, title=EVIL, name=EVIL, relation=EVIL))
    shown = browser.Browser(tmp_path / "profile")
    try:
        shown.open(tmp_path / "page.html", width)
        assert shown.complaints() == []
        assert len(shown.urls()) == 1
        assert shown.evaluate("document.documentElement.scrollWidth") == width
    finally:
        shown.close()
