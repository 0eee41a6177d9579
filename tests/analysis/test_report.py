"""``segdre report``: what the page says, that it says it safely, and how a browser takes it."""

import html
import itertools
import json
import re
import shutil

import browser
import numpy as np
import pytest
from finished import make_documents, make_run, rewrite

from segdre_plugin.analysis.report import charts
from segdre_plugin.analysis.report.choose import choose_typical
from segdre_plugin.analysis.report.decisions import decide
from segdre_plugin.analysis.report.documents import view_document
from segdre_plugin.analysis.report.made import made_section
from segdre_plugin.analysis.report.matrix import draw_matrix
from segdre_plugin.analysis.report.page import gain_notes, grid_figures
from segdre_plugin.analysis.report.render import write_report
from segdre_plugin.analysis.report.run_cells import dev_grid, expected_counts, load_candidates
from segdre_plugin.analysis.report.tree import draw_trees
from segdre_plugin.cli import main
from segdre_plugin.data.files import fingerprint
from segdre_plugin.data.splits import Split
from segdre_plugin.data.synthetic.corpus import RELATIONS
from segdre_plugin.injection import Group, inject, inject_groups, visible_matrix
from segdre_plugin.metrics import evaluate
from segdre_plugin.seg.fuse import fuse
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.run_folder import RunFolder

# texts whose contrast with what is behind them is below 4.5 (WCAG 2.2, 1.4.3)
FAINT = """(() => {
  const rgba = text => [...text.matchAll(/[\\d.]+/g)].map(Number).concat(1).slice(0, 4);
  const light = colour => colour.slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = e => { for (; e; e = e.parentElement) {
    const colour = rgba(getComputedStyle(e).backgroundColor); if (colour[3] > 0.99) return colour; } };
  const texts = [...document.querySelectorAll('body *')].filter(e => e.getClientRects().length &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()));
  return texts.map(e => {
    const style = getComputedStyle(e), own = rgba(e.closest('svg') ? style.fill : style.color);
    const [high, low] = [light(own), light(behind(e))].sort((a, b) => b - a);
    return [(high + 0.05) / (low + 0.05), e.outerHTML.slice(0, 90)];
  }).filter(([contrast]) => !(contrast >= 4.5));
})()"""
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
    for name in ("steps", "scores", "thresholds", "grid", "saliency", "margins", "documents", "data"):
        assert f'<section id="{name}">' in text
        assert f'href="#{name}"' in text
    base, tuned, fused = (f"{100 * metrics['test'][row]['f1']:.2f}" for row in ("base", "base_tuned", "fused"))
    change = 100 * (metrics["test"]["fused"]["f1"] - metrics["test"]["base"]["f1"])
    assert f"On test, base has an F1 of {base}, {tuned} with its threshold tuned, and the fused" in text
    assert f"result of {fused} ({change:+.2f} against base, " in text
    shown = words(text)
    assert all(note in shown for note in ("The sparse stage adds", "command python train.py --seg --seg-dir out"))
    assert text.count("<figure") == text.count("<figcaption>")
    assert text.count("<article>") in (3, 4)
    order = [text.index(part) for part in ("points of test F1 over the tuned base", 'id="steps"', 'id="scores"')]
    assert order == sorted(order)  # the verdict, one document, the tables


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


@pytest.mark.slow
def test_typical_documents_are_the_extremes(out):
    run = RunFolder(out)
    chosen = choose_typical(run, load_candidates(run, "dev"))
    dev = run.documents["dev"]
    results = {"base": load_candidates(run, "dev").cells, "fused": json.loads((out / "result_dev.json").read_text())}
    names = {i: name for name, i in run.rel2id.items()}
    base = results["base"].take(results["base"].margin > run.tau_base_alone)
    columns = (base.document, base.head, base.tail, base.relation)
    results["base"] = [
        {"title": dev[d]["title"], "h_idx": int(h), "t_idx": int(t), "r": names[int(r)]}
        for d, h, t, r in zip(*columns, strict=True)
    ]

    def f1(name, d):
        return evaluate([x for x in results[name] if x["title"] == dev[d]["title"]], [dev[d]])["f1"]

    changes = [f1("fused", d) - f1("base", d) for d in range(len(dev))]
    reasons = {choice.index: choice.reason for choice in chosen}
    best, worst = (find(range(len(dev)), key=changes.__getitem__) for find in (max, min))
    assert "the largest change of F1 on dev: " in reasons[best]
    assert f"({100 * max(changes):+.2f})" in reasons[best]
    assert changes[next(d for d in reasons if "smallest" in reasons[d])] == pytest.approx(changes[worst])
    assert 3 <= len(chosen) == len(reasons) <= 4
    # on the first one, every step can be seen
    view = view_document(run, load_candidates(run, "dev"), chosen[0], expected_counts(run, "dev"))
    assert view.trees
    assert any(row.gold for outcome in view.outcomes for row in outcome.decisions if row.outcome == "added by sparse")


def test_steps_of_a_document_are_what_the_run_did(out):
    run = RunFolder(out)
    dev, counts = load_candidates(run, "dev"), expected_counts(run, "dev")
    tau = run.thresholds
    for choice in choose_typical(run, dev):
        document = run.documents["dev"][choice.index]
        view = view_document(run, dev, choice, counts)
        here = dev.cells.document == choice.index
        outcomes = {outcome.name: outcome.decisions for outcome in view.outcomes}
        rows = [row for decisions in outcomes.values() for row in decisions]
        # step 4: every decision is that of the fused result, and by the threshold that it names
        assert view.facts["fused"] == sum(row.fused for row in rows) == (dev.fused & here).sum()
        assert view.facts["fused_correct"] == sum(row.fused and row.gold for row in rows)
        assert view.facts["tuned"] == sum(row.tuned for row in rows)
        for row in rows:
            over = row.stage > (tau.tau_dense if row.kind == "dense" else tau.tau_sparse)
            assert (row.over_base, row.over_stage) == (row.base > tau.tau_base, over)
            assert row.fused == (row.over_base or row.over_stage)
        for name, decisions in outcomes.items():
            assert all(row.outcome == name for row in decisions)
            if name.startswith("added by"):
                assert all(
                    row.over_base if name.endswith("base") else row.kind == name.split()[-1] for row in decisions
                )
        # no gold is left out, predicted or not
        assert sum(bool(row.gold) for row in rows) == view.facts["gold"]
        # steps 1 to 3
        assert [bar.salient for bar in view.bars].count(True) == len(view.salient)
        shown = [bar.expected for bar in view.bars]
        assert shown == sorted(shown, reverse=True)
        n_branches = sum(len(tree.branches) for tree in view.trees)
        edges = [edge for hub in view.hubs for edge in (*hub.incoming, *hub.outgoing)]
        assert len([edge for edge in edges if edge.injected]) == n_branches == len(run.injected("dev")[choice.index])
        assert sum(piece.branches for sentence in view.sentences for piece in sentence) == n_branches
        text = ["".join(p.text if p.glue else f" {p.text}" for p in sentence) for sentence in view.sentences]
        plain = [" ".join(sentence) for sentence in document["sents"]]
        assert [s.replace(" ", "") for s in text] == [s.replace(" ", "") for s in plain]


def test_counts_of_entities_are_sums_over_their_pairs(out):
    run = RunFolder(out)
    arrays = run.counts("dev")
    for d, counts in enumerate(expected_counts(run, "dev")):
        mine = arrays["document"] == d
        for entity, count in enumerate(counts):
            involved = mine & (arrays["pair"] == entity).any(axis=1)
            assert count == pytest.approx(arrays["count"][involved].sum())


@pytest.mark.slow
def test_gold_that_is_no_candidate_is_missed_gold(tmp_path):
    run = RunFolder(make_run(tmp_path))
    dev = load_candidates(run, "dev")
    d = next(d for d in range(len(run.documents["dev"])) if (dev.gold & (dev.cells.document == d)).any())
    chain, document = run.salient("dev")[d], run.documents["dev"][d]
    here = np.flatnonzero((dev.cells.document == d) & ~dev.gold)  # no gold triple is a candidate any more
    missed = [row for row in decide(run, document, chain, dev, here, True) if row.outcome == "missed"]
    assert len(missed) == len({(label["h"], label["r"], label["t"]) for label in document["labels"]})
    assert all(row.base == row.stage == -np.inf and row.gold for row in missed)
    dense = sum(row.kind == "dense" for row in missed)
    assert dense == len({(x["h"], x["r"], x["t"]) for x in document["labels"] if {x["h"], x["t"]} & set(chain)})


def test_branches_stand_in_the_columns_of_their_soft_positions():
    words = [f"w{i}" for i in range(20)]
    texts = [["head", "of", "state"], ["capital"], ["x"] * 30]
    groups = [Group([(5, 7), (9, 10)], [range(3), range(1)], None), Group([(0, 1)], [range(30)], None)]
    first, second = draw_trees(words, groups, texts)
    injected = inject_groups(range(20), groups)
    for tree, rows, at in ((first, texts[:2], 20), (second, texts[2:], 24)):
        for line, text in zip(tree.branches, rows, strict=True):
            wanted = injected.position_ids[at : at + len(line.words)].tolist()
            assert list(tree.positions[line.start : line.start + len(line.words)]) == wanted
            assert list(line.words) == text[: len(line.words)]
            assert line.cut == (len(line.words) < len(text))
            at += len(text)
    assert first.text.words == words[2:16]
    assert [first.text.words[k] for k in first.anchor] == ["w5", "w6"]
    assert second.branches[0].cut


@pytest.mark.slow
def test_stage_that_adds_nothing_is_named_and_one_that_adds_is_not(tmp_path):
    out = make_run(tmp_path)

    def notes():
        run = RunFolder(out)
        dev = load_candidates(run, "dev")
        return gain_notes(run, dev, *dev_grid(run, dev))

    adds = r"The (dense|sparse) stage adds \d+\.\d\d points of dev F1"
    assert [re.match(adds, note)[1] for note in notes()] == ["dense", "sparse"]
    path = out / "sparse" / "margins_dev.npz"
    arrays = dict(np.load(path))
    np.savez(path, **arrays | {"margin": np.full_like(arrays["margin"], -9)})  # below any threshold
    run = RunFolder(out)
    train = Split("train", run.files["train"], run.train)
    fuse(run, {name: run.split(name) for name in ("dev", "test")} | {"train": train}, run.rel2id, parse(["--seg"])[0])
    dense, sparse = notes()
    assert sparse == "The sparse stage adds nothing on dev: the whole grid of its threshold is flat."
    assert re.match(adds, dense)


def test_how_the_run_was_made(out, tmp_path):
    whole, stages = made_section(RunFolder(out))
    said = {name: texts[0] for name, texts in whole.rows}
    assert said["command"] == "python train.py --seg --seg-dir out"
    assert said["machine"] == "a processor, 2 cores, 1 thread, no GPU, Linux 6.1"
    assert said["versions"].startswith("segdre_plugin 0, torch 2")
    assert said["learning rates"] == "learning_rate 5e-05"
    assert stages.rows[1] == ("identify", ["10", "0.001", "75 s", "2026-11-01 12:00"])
    copy = shutil.copytree(out, tmp_path / "out")
    origin = json.loads((copy / "dense" / "provenance.json").read_text())
    (copy / "dense" / "provenance.json").write_text(json.dumps(origin | {"processes": 4}))
    assert dict(made_section(RunFolder(copy))[0].rows)["machine"] == [
        f"{said['machine']}; 4 processes, the main one on: {said['machine']}"
    ]
    (copy / "base" / "provenance.json").unlink()
    assert made_section(RunFolder(copy))[1].rows[0] == ("base", ["30", "the script's", "not recorded", "not recorded"])


@pytest.mark.slow
def test_no_legend_covers_a_chart(monkeypatch):
    from matplotlib.figure import Figure

    boxes = []

    def measured(figure, *args, **how):
        drawn(figure, *args, **how)
        boxes.extend(
            (legend.get_window_extent(), ax.get_window_extent())
            for ax in figure.axes
            for legend in (*figure.legends, *filter(None, [ax.get_legend()]))
        )

    drawn = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", measured)
    many = np.linspace(-3, 3, 60)
    charts.counts(np.arange(9.0), np.arange(9.0)[::-1], np.arange(9) % 2 == 0)
    charts.margins("dense", many, many > 0, 0.0)
    assert len(boxes) == 2
    assert not [1 for legend, axes in boxes if legend.overlaps(axes)]


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
        assert "✓ gold" not in shown


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
    scores = metrics["test"] | {"fused_isf": metrics["test"]["fused"], "base_isf": metrics["test"]["base"]}
    later = {"file": "test.json", "test": scores, "evidence": True, "isf": isf, "thresholds": metrics["thresholds"]}
    (out / "eval" / "test_isf").mkdir(parents=True)
    (out / "eval" / "test_isf" / "metrics.json").write_text(json.dumps(later))
    shutil.copy(out / "result.json", out / "eval" / "test_isf")
    text = words(write_report(out).read_text())
    plain = re.search(r"(\+\S+ points of test F1 over the tuned base, 95 % from [^)]*\)[^.]*)\.", text)[1]
    gain = 100 * (metrics["test"]["fused"]["f1"] - metrics["test"]["base"]["f1"])
    assert (
        f"With inference-stage fusion: {plain}. That is {gain:+.2f} points over the base with inference-stage fusion."
        in text
    )
    assert "Evi-F1" in text
    assert "Evaluation test_isf" in text
    assert "τ = 0.25" in text


@pytest.mark.slow
def test_document_without_pairs(tmp_path):
    documents = make_documents()
    lone = documents["dev"][3]
    lone["labels"], lone["vertexSet"] = [], lone["vertexSet"][:1]
    text = words(write_report(make_run(tmp_path, documents), titles=[lone["title"]]).read_text())
    assert "Among 1 entities, the tuned base predicts 0 triples (0 correct)" in text
    assert "Predicted salient entity: none." in text
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
            for width, theme in itertools.product((1400, 400), ("light", "dark")):
                chromium.prefer(theme)
                chromium.open(page, width)
                assert chromium.evaluate("innerWidth") == width
                assert chromium.evaluate("document.documentElement.scrollWidth") <= width
                assert chromium.evaluate("document.querySelector('main').clientWidth") > 0.9 * width - 20
                wide = (
                    "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll, svg') && "
                    "e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 80))"
                )
                assert chromium.evaluate(wide) == []
                assert chromium.evaluate(FAINT) == [], theme
                assert [url for url in chromium.urls() if not url.startswith(("data:", page.as_uri()))] == []
                assert chromium.complaints() == []
                assert chromium.evaluate("document.querySelectorAll('article').length") in (1, 3, 4)
            chromium.evaluate("document.documentElement.style.setProperty('--quiet', '#777')")  # faint on dark paper
            assert chromium.evaluate(FAINT)
        finally:
            chromium.close()
