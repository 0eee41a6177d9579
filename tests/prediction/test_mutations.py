"""Mutated inputs for every command that reads files of strangers: a message or the right result, never anything else.

A short part of what ``python tests/helpers/mutations.py`` tries.
"""

import mutations
import pytest
import torch
from bundles import bundle, run_folder  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow
READERS = [name for name in mutations.COMMANDS if name != "predict"]


def check(counts, wrong, tried):
    assert not wrong, "\n\n".join(wrong[:3])
    assert counts["ok"] > tried / 10
    assert counts["refused"] > tried / 10
    assert counts["unsure"] < tried / 20


@pytest.mark.parametrize("name", READERS)
def test_files(name):
    check(*mutations.attempts(name, range(100)), 100)


def test_documents_to_predict(bundle):  # noqa: F811
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with mutations.one_pipeline(bundle):
        counts, wrong = mutations.attempts("predict", range(40), bundle)
    torch.set_num_threads(threads)
    assert not wrong, "\n\n".join(wrong[:3])
    assert counts["ok"] > 20  # with the broken documents in a file of their own


def test_what_the_check_would_see(tmp_path, monkeypatch):
    # negative control: without our own checks, broken inputs are accepted or end in tracebacks
    for module, name in (("documents", "_mention_problem"), ("convert", "_span_problem")):
        monkeypatch.setattr(f"segdre_plugin.data.{module}.{name}", lambda *_: "")
    counts, _ = mutations.attempts("validate", range(60))
    assert counts["silent"] > 3
    counts, _ = mutations.attempts("convert", range(60))
    assert counts["exception"] + counts["silent"] > 3
