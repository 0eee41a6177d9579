"""docs/python.md: its block runs, from training to fused triples, on fewer documents."""

from dataclasses import replace

import pytest
import torch
from pages import Page

from segdre_plugin.metrics import evaluate


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_from_identify_to_fused_triples(monkeypatch, capsys):
    page = Page("python.md")
    sizes = "N_TRAIN, N_DEV, EPOCHS = 400, 60, 4"
    assert page.text.count(sizes) == 1
    monkeypatch.setattr(page, "text", page.text.replace(sizes, "N_TRAIN, N_DEV, EPOCHS = 24, 4, 1"))
    torch.manual_seed(0)
    names = page.run("end-to-end")
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()[:4]] == [*names["chain"]]
    scored, thresholds = names["scored"], names["thresholds"]
    assert {name: len(part.salient) for name, part in scored.items()} == {"dev": 4, "test": 4}
    assert [len(part.tables) for part in scored.values()] == [3, 3]
    part = scored["test"]  # at a threshold that hardly trained models reach
    triples = part.predict(part.cells(), replace(thresholds, tau_base=-20.0))
    assert evaluate(triples, part.split.documents)["recall"] > 0.2
    titles = {document["title"] for document in part.split.documents}
    assert {triple["title"] for triple in triples} == titles
