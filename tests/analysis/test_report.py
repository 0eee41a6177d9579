"""``segdre report``: what the page says, that it says it safely, and how a browser takes it."""

import html
import json
import re

import browser
import numpy as np
import pytest
from finished import make_documents, make_run, rewrite

from segdre_plugin.analysis.report.choose import choose_typical
from segdre_plugin.analysis.report.documents import view_document
from segdre_plugin.analysis.report.matrix import draw_matrix
from segdre_plugin.analysis.report.page import grid_figures
from segdre_plugin.analysis.report.render import write_report
from segdre_plugin.analysis.report.run_cells import dev_grid, load_candidates
from segdre_plugin.cli import main
from segdre_plugin.data.files import fingerprint
from segdre_plugin.data.synthetic.corpus import RELATIONS
from segdre_plugin.injection import Group, inject, visible_matrix
from segdre_plugin.metrics import evaluate
from segdre_plugin.salient import gold_salient
from segdre_plugin.seg.run_folder import RunFolder

EVIL = """<script>alert(1)</script>"&'{{ 7 * 7 }}$x_1$"""


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def text(out, tmp_path_factory):
    return write_report(out, tmp_path_factory.mktemp("page") / "page.html").read_text()


def words(text):
    """The page's text without tags, blanks as one space."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())


@pytest.mark.slow
def test_page_holds_every_score_and_section(out, text):
    metrics = json.loads((out / "metrics.json").read_text())
    for split in ("dev", "test"):
        for row in ("base", "dense", "base_on_dense", "sparse", "base_on_sparse", "fused"):
            for score in ("precision", "recall", "f1", "ign_f1", "intra_f1", "inter_f1"):
                assert f"<td>{100 * metrics[split][row][score]:.2f}</td>" in text
        for score in ("accuracy", "saliency", "saliency_micro"):
            assert f"<td>{100 * metrics[split]['salient'][score]:.2f}</td>" in text
    for name in ("scores", "thresholds", "grid", "saliency", "margins", "documents", "data"):
        assert f'<section id="{name}">' in text
        assert f'href="#{name}"' in text
    base, tuned, fused = (f"{100 * metrics['test'][row]['f1']:.2f}" for row in ("base", "base_tuned", "fused"))
    change = float(fused) - float(base)
    assert f"On test, base has an F1 of {base}, {tuned} with its threshold tuned, and the fused" in text
    assert f"result of {fused} ({change:+.2f} against base, " in text
    assert text.count("<figure") == text.count("<figcaption>")
    assert text.count("<article>") == 3


@pytest.mark.slow
def test_page_stands_alone(text):
    assert not re.search(r"<(script|link rel=\"stylesheet|img|iframe|object)", text)
    assert not re.search(r"(src|href)=\"(?!#|data:)", text)
    assert "http" not in re.sub(r'http-equiv="[^"]*"|xmlns(:\w+)?="[^"]*"', "", text)
    assert len(text) < 600_000


@pytest.mark.slow
def test_same_run_gives_the_same_page(out, text, tmp_path):
    assert write_report(out, tmp_path / "again.html").read_text() == text


@pytest.mark.slow
def test_user_style_of_matplotlib_has_no_say(out, text, tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.grid": False}):
        assert write_report(out, tmp_path / "styled.html").read_text() == text
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.slow
def test_grid_is_the_one_that_was_searched(out):
    run = RunFolder(out)
    dev = load_candidates(run, "dev")
    grid, best = dev_grid(run, dev)
    thresholds = run.metrics["thresholds"]
    assert [grid.taus[k, i] for k, i in enumerate(best)] == [
        thresholds[f"tau_{s}"] for s in ("base", "dense", "sparse")
    ]
    assert max(grid.scores(i).max() for i in range(len(grid.offsets))) == pytest.approx(thresholds["f1"], abs=1e-12)
    assert len(grid_figures(grid, best)) == 4
    predicted = dev.cells.take(dev.fused)
    assert len(predicted) == run.metrics["dev"]["fused"]["n_predicted"]


def test_typical_documents_are_the_extremes(out):
    run = RunFolder(out)
    chosen = choose_typical(run, load_candidates(run, "dev"))
    dev = run.documents["dev"]
    results = {"base": load_candidates(run, "dev").cells, "fused": json.loads((out / "result_dev.json").read_text())}
    names = {i: name for name, i in run.rel2id.items()}
    base = results["base"].take(results["base"].margin > 0)
    columns = (base.document, base.head, base.tail, base.relation)
    results["base"] = [
        {"title": dev[d]["title"], "h_idx": int(h), "t_idx": int(t), "r": names[int(r)]}
        for d, h, t, r in zip(*columns, strict=True)
    ]

    def f1(name, d):
        return evaluate([x for x in results[name] if x["title"] == dev[d]["title"]], [dev[d]])["f1"]

    changes = [f1("fused", d) - f1("base", d) for d in range(len(dev))]
    assert changes[chosen[0].index] == pytest.approx(max(changes))
    assert changes[chosen[1].index] == pytest.approx(min(changes))
    assert f"({100 * max(changes):+.2f})" in chosen[0].reason
    assert len({choice.index for choice in chosen}) == 3


def test_changes_against_base_add_up(out):
    run = RunFolder(out)
    dev = load_candidates(run, "dev")
    for choice in choose_typical(run, dev):
        document = run.documents["dev"][choice.index]
        view = view_document(run, dev, choice, gold_salient(document))
        change = {(c.what, c.verdict): c.number for c in view.changes["fused"]}
        facts = view.facts
        assert facts["fused_correct"] - facts["base_correct"] == change.get(("added", "correct"), 0) - change.get(
            ("lost", "correct"), 0
        )
        assert facts["fused"] - facts["base"] == sum(n if what == "added" else -n for (what, _), n in change.items())
        assert [len(sentence) for sentence in view.sentences]
        shown = ["".join(p.text if p.glue else f" {p.text}" for p in sentence) for sentence in view.sentences]
        plain = [" ".join(sentence) for sentence in document["sents"]]
        assert [s.replace(" ", "") for s in shown] == [s.replace(" ", "") for s in plain]
        assert [triple.stage for _, triple in view.branches] == sorted(
            (t.stage for _, t in view.branches), reverse=True
        )


def test_matrix_rectangles_paint_the_visible_matrix():
    anchors, branches, linked = [(1, 3), (7, 8)], [3, 1, 2], [[(4, 6)], [], [(9, 10)]]
    picture = draw_matrix(10, [Group(anchors, [range(n) for n in branches], linked)])
    injected = inject(range(10), anchors, [[0] * n for n in branches], branch_anchors=linked)
    painted = np.zeros((16, 16), dtype=int)
    for r in picture.rectangles:
        painted[r.y : r.y + r.height, r.x : r.x + r.width] += 1
        assert r.kind == ("text" if max(r.x, r.y) < 10 else "branch" if min(r.x, r.y) >= 10 else "link")
    np.testing.assert_array_equal(painted, visible_matrix(injected.node_ids, injected.visibility).astype(int))
    nothing = draw_matrix(5, [])
    assert [(r.width, r.height, r.kind) for r in nothing.rectangles] == [(5, 5, "text")]


@pytest.mark.slow
def test_chosen_documents_of_dev_and_test(out, tmp_path):
    run = RunFolder(out)
    titles = [run.documents["test"][2]["title"], run.documents["dev"][0]["title"]]
    page = tmp_path / "chosen.html"
    assert main(["report", str(out), "--output", str(page), "--documents", *titles]) == 0
    assert re.findall(r"<h3><bdi>(.*?)</bdi></h3>", page.read_text()) == titles


@pytest.mark.slow
def test_everything_from_outside_is_escaped(tmp_path):
    documents = make_documents()
    document = documents["dev"][0]
    document["title"] = EVIL
    document["sents"][0][0] = EVIL
    for mention in document["vertexSet"][0]:
        mention["name"] = mention["type"] = EVIL
        document["sents"][mention["sent_id"]][mention["pos"][0]] = EVIL
    names = dict.fromkeys(RELATIONS, EVIL)
    folder = tmp_path / EVIL.replace("/", "")
    out = make_run(folder, documents, names=names, sparse={"template_from": "{relation} <b>{tail}</b>"})
    text = write_report(out, titles=[EVIL]).read_text()
    assert "<script" not in text
    assert "<b>{tail}" not in text
    assert "49$x" not in text
    assert html.escape(EVIL) in text.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")


@pytest.mark.slow
def test_half_characters_in_names_do_not_stop_it(tmp_path):
    out = make_run(tmp_path)
    names = out.parent / "data" / "rel_info.json"
    rewrite(names, lambda found: dict.fromkeys(found, "half \ud800"))
    hashes = {"rel_info": fingerprint(names)}
    half = dict.fromkeys(RELATIONS, "half \ud800")
    rewrite(out / "run.json", lambda run: run | {"hashes": run["hashes"] | hashes, "relation_names": half})
    assert "half &#55296;" in write_report(out).read_bytes().decode("utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unlabelled", "missing"])
def test_test_split_without_gold_or_not_there(tmp_path, kind):
    documents = make_documents()
    title = documents["test"][1]["title"]
    for document in documents["test"]:
        del document["labels"]
    if kind == "missing":
        del documents["test"]
    out = make_run(tmp_path, documents)
    text = write_report(out).read_text()
    assert ("test has no gold triples" in text) == (kind == "unlabelled")
    if kind == "unlabelled":
        shown = words(write_report(out, titles=[title]).read_text())
        assert title in shown
        assert "no gold" in shown
        assert "✓ correct" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--seg-grid", "redocred"], ["--seg-objective", "ign_f1"]])
def test_other_grids_and_objectives(tmp_path, options):
    text = write_report(make_run(tmp_path, options=options)).read_text()
    assert ("71³ points" in text) == (options[1] == "redocred")
    assert ("Ign-F1 over the threshold grid" in text) == (options[1] == "ign_f1")


@pytest.mark.slow
def test_evidence_and_later_evaluations(tmp_path):
    out = make_run(tmp_path, evidence=True)
    metrics = json.loads((out / "metrics.json").read_text())
    isf = {"tau": 0.25, "thresholds": metrics["thresholds"]}
    scores = metrics["test"] | {"fused_isf": metrics["test"]["fused"]}
    later = {"test": scores, "evidence": True, "isf": isf, "thresholds": metrics["thresholds"]}
    (out / "eval" / "test_isf").mkdir(parents=True)
    (out / "eval" / "test_isf" / "metrics.json").write_text(json.dumps(later))
    text = words(write_report(out).read_text())
    assert "Evi-F1" in text
    assert "Evaluation test_isf" in text
    assert "τ = 0.25" in text


@pytest.mark.slow
def test_document_without_pairs(tmp_path):
    documents = make_documents()
    lone = documents["dev"][3]
    lone["labels"], lone["vertexSet"] = [], lone["vertexSet"][:1]
    text = words(write_report(make_run(tmp_path, documents), titles=[lone["title"]]).read_text())
    assert "Predicted salient entity: none. Among 1 entities, base predicts 0 triples" in text
    assert "No dense triple was predicted, so none was injected." in text


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium to load the page in")
def test_page_in_a_browser(out, tmp_path):
    documents = make_documents()
    long = "Donaudampfschifffahrtsgesellschaft" * 6
    documents["dev"][0]["title"] = documents["dev"][0]["sents"][0][0] = long
    documents["dev"][0]["vertexSet"][0][0]["name"] = long
    for page in (write_report(out, tmp_path / "a.html"), write_report(make_run(tmp_path, documents), titles=[long])):
        chromium = browser.Browser(tmp_path / page.stem)
        try:
            for width in (1280, 390):
                chromium.open(page, width)
                assert chromium.evaluate("innerWidth") == width
                assert chromium.evaluate("document.documentElement.scrollWidth") <= width
                wide = (
                    "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg') && "
                    "e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))"
                )
                assert chromium.evaluate(wide) == []
                assert [url for url in chromium.urls() if not url.startswith(("data:", page.as_uri()))] == []
                assert chromium.complaints() == []
                assert chromium.evaluate("document.querySelectorAll('article').length") in (1, 3)
        finally:
            chromium.close()
