"""Whole runs of the reference model with other strategies and with several salient entities, to bundle and report."""

import html
import json
import re
import shutil

import numpy as np
import pytest
from bundles import _run, mixed, run_folder  # noqa: F401 - fixture
from seg_runs import contents

from segdre_plugin import SegDREError, SegPipeline
from segdre_plugin.analysis.report.page import saliency_section
from segdre_plugin.analysis.report.render import write_report
from segdre_plugin.analysis.report.run_cells import expected_counts
from segdre_plugin.cli import main
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.salient import gold_chain, saliency, select_chain
from segdre_plugin.seg.bundle import bundle_run
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.branches import entity_name
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.strategies import choose_salient, get_strategy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

RUNS = {
    "zip 2": ["--seg-salient-k", "2"],
    "linear": ["--seg-salient", "linear"],
    "aggregation 3": ["--seg-salient", "aggregation", "--seg-salient-k", "3", "--seg-link"],
    "random": ["--seg-salient", "random", "--seg-train-salient", "same", "--seed", "4"],
    "gold": ["--seg-salient", "gold"],
}
UNTRAINED = ("aggregation 3", "random", "gold")
TRAINED = {"checkpoint.pt", "counts_dev.npz", "counts_test.npz"}


class Made:
    """A run on the base of the run that all tests share, unless its seed is another."""

    def __init__(self, shared, name):
        self.name, self.options = name, RUNS[name]
        self.strategy, _, k = name.partition(" ")
        self.k = int(k or 1)
        self.folder = shared.parent / name.replace(" ", "-")
        if "--seed" not in self.options:
            shutil.copytree(shared / "base", self.folder / "base")
        self.seed = 4 if "--seed" in self.options else 0
        _run(self.folder, *self.options)
        self.salient = self.read("identify/salient.json")
        self.corpus = shared.parent / "corpus"

    def read(self, name):
        return json.loads((self.folder / name).read_text())

    def documents(self, name):
        return json.loads((self.corpus / f"{name}.json").read_text())

    def margins(self, stage, split="dev"):
        return Margins.load(self.folder / stage / f"margins_{split}.npz")


@pytest.fixture(scope="module", params=RUNS)
def made(request, run_folder, one_thread):  # noqa: F811
    return Made(run_folder, request.param)


def test_stage_identify_leaves_what_it_should(made):
    left = {path.name for path in (made.folder / "identify").iterdir()}
    always = {"salient.json", "metrics.json", "settings.json", "provenance.json"}
    assert left == always | (set() if made.name in UNTRAINED else TRAINED)
    options = made.read("identify/settings.json")["options"]
    assert options["salient"] == made.strategy
    assert options["salient_k"] == made.k
    assert ("hidden" in options) == (made.name not in UNTRAINED)
    for split in ("dev", "test"):
        documents, chains = made.documents(split), made.salient[split]
        if made.name in UNTRAINED:
            how = {"k": made.k, "seed": made.seed, "base": made.margins("base", split)}
            due = choose_salient(get_strategy(made.strategy), documents, **how)
        else:
            with np.load(made.folder / "identify" / f"counts_{split}.npz") as file:
                arrays = dict(file)
            rows = [arrays["document"] == d for d in range(len(documents))]
            sizes = [len(document["vertexSet"]) for document in documents]
            due = [
                tuple(select_chain(arrays["count"][row], arrays["pair"][row], n, made.k))
                for row, n in zip(rows, sizes, strict=True)
            ]
        assert chains == [list(chain) for chain in due]
        assert made.name == "aggregation 3" or {len(chain) for chain in chains} == {made.k}
        scores = made.read("metrics.json")[split]
        assert scores["salient"] == made.read("identify/metrics.json")[split] == saliency(documents, due, made.k)
        assert scores["strategies"][made.strategy] == scores["salient"]
        assert list(scores["strategies"]) == [
            made.strategy,
            *(s for s in ("aggregation", "max-mention", "edit-distance", "random") if s != made.strategy),
        ]


def test_each_stage_has_its_pairs_and_injects_its_triples(made):
    documents, chains = made.documents("dev"), made.salient["dev"]
    pairs = {
        stage: {tuple(cell) for cell in np.stack([table.document, table.head, table.tail], axis=1).tolist()}
        for stage in ("base", "dense", "sparse")
        for table in [made.margins(stage)]
    }
    assert pairs["dense"] == {(d, h, t) for d, h, t in pairs["base"] if {h, t} & set(chains[d])}
    assert pairs["sparse"] == pairs["base"] - pairs["dense"]
    injected = made.read("sparse/injected.json")
    assert all({h, t} & set(chains[d]) for d, found in enumerate(injected["dev"]["triples"]) for h, _, t in found)
    assert sum(map(len, injected["dev"]["triples"])) > 0
    train = made.documents("train_annotated")
    same = "--seg-train-salient" in made.options
    due = (
        choose_salient(get_strategy(made.strategy), train, k=made.k, seed=made.seed)
        if same
        else [gold_chain(document, made.k) for document in train]
    )
    gold = [
        [[x["h"], x["r"], x["t"]] for x in document["labels"] if {x["h"], x["t"]} & set(chain)]
        for document, chain in zip(train, due, strict=True)
    ]
    assert injected["train"]["triples"] == gold
    assert made.read("metrics.json")["dev"]["dense"]["n_gold"] == sum(
        bool({x["h"], x["t"]} & set(chains[d])) for d, document in enumerate(documents) for x in document["labels"]
    )


def test_second_run_skips_everything_and_other_settings_are_refused(made, capsys):
    before = contents(made.folder)
    capsys.readouterr()
    _run(made.folder, *made.options)
    assert capsys.readouterr().out.count("is done") == 4
    assert contents(made.folder) == before
    with pytest.raises(SegDREError, match=f"options.salient: '{made.strategy}' there, 'max-mention' now"):
        _run(made.folder, *made.options, "--seg-salient", "max-mention")
    with pytest.raises(SegDREError, match=rf"options.salient_k: {made.k} there, 5 now"):
        _run(made.folder, *made.options, "--seg-salient-k", "5")
    assert contents(made.folder) == before


def test_bundle_predicts_what_the_run_did(made, tmp_path):
    bundle = bundle_run(made.folder, tmp_path / "bundle")
    assert (bundle / "identify.safetensors").exists() == (made.name not in UNTRAINED)
    pipeline = SegPipeline.from_pretrained(bundle)
    documents = made.documents("dev")
    answers = pipeline(documents, batch_size=3)
    assert official_rows(answers) == made.read("result_dev.json")
    chosen = [answer["salient"] if made.k > 1 else [answer["salient"]] for answer in answers]
    assert [[part["entity"] for part in parts] for parts in chosen] == made.salient["dev"]
    assert all((part["count"] is None) == (made.name in UNTRAINED) for parts in chosen for part in parts)
    if made.name == "zip 2":
        with np.load(made.folder / "identify" / "counts_dev.npz") as file:
            here = (file["document"] == 0) & (file["pair"] == chosen[0][1]["entity"]).any(axis=1)
            assert chosen[0][1]["count"] == pytest.approx(file["count"][here].sum(), rel=1e-5)
    pipeline.save_pretrained(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(bundle)
    if made.strategy == "gold":
        with pytest.raises(SegDREError, match=r"strategy gold reads labels.*"):
            pipeline({name: value for name, value in documents[0].items() if name != "labels"})
    else:
        strange = mixed(documents[:2])
        found = pipeline(strange)
        assert [answer["title"] for answer in found] == [document["title"] for document in strange]
        lone = next(a for a, d in zip(found, strange, strict=True) if len(d["vertexSet"]) < 2)
        assert lone["salient"] == (None if made.k == 1 else [])


def test_report_shows_who_was_chosen(made, tmp_path):
    run = RunFolder(made.folder)
    table, figures = saliency_section(run, expected_counts(run, "dev"))
    due = [
        (f"{split}, {strategy}", f"{100 * scores['accuracy']:.2f}")
        for split in ("dev", "test")
        for strategy, scores in made.read("metrics.json")[split]["strategies"].items()
    ]
    assert [(name, texts[0]) for name, texts in table.rows] == due
    assert len(figures) == (made.name not in UNTRAINED)
    if made.name == "zip 2":  # the whole page takes seconds
        documents, chains = made.documents("dev"), made.salient["dev"]
        page = write_report(made.folder, tmp_path / "page.html", titles=[documents[0]["title"]]).read_text()
        first, second = (html.escape(entity_name(documents[0], entity)) for entity in chains[0])
        assert re.search(rf"Predicted salient entities: <.*{first}.*\), <.*{second}", page)
        assert "Up to 2 salient entities a document" in page


def test_labels_are_missed_before_anything_is_trained(run_folder, tmp_path):  # noqa: F811
    corpus = shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
    documents = json.loads((corpus / "test.json").read_text())
    (corpus / "test.json").write_text(json.dumps([{k: v for k, v in d.items() if k != "labels"} for d in documents]))
    with pytest.raises(SegDREError, match=r"test.json: strategy gold reads labels(.*\n)*.*document 0"):
        _run(tmp_path / "run", "--seg-salient", "gold")
    assert not (tmp_path / "run" / "base").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seg-salient", "zap"], "unknown strategy 'zap'"),
        (["--seg-salient-k", "0"], "--seg-salient-k is 0"),
        (["--seg-train-salient", "same"], "strategy zip rests on predictions"),
    ],
)
def test_demo_takes_the_options_and_refuses_before_it_writes(tmp_path, capsys, options, message):
    assert main(["demo", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
