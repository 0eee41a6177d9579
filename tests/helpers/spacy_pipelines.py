"""spaCy pipelines for tests, without a download; a test that imports this file skips where spaCy is missing."""

from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

if find_spec("spacy") is None:  # imported where it is used: that takes seconds, and every process collects all tests
    pytest.skip('needs spaCy: pip install -e ".[text]"', allow_module_level=True)

PATTERNS = {
    "Olo Varn": "PERSON",
    "Varn": "PERSON",
    "Varnburg": "GPE",
    "the Varnburg": "ORG",
    "Varnburg's": "LOC",
    "1901": "DATE",
    "first": "ORDINAL",
    "Zork": "SPACESHIP",
}


def small(without="", patterns=PATTERNS, coreference=None):
    """A pipeline of rules: names by a list, sentences by full stops; ``coreference`` changes a document afterwards."""
    nlp = _rules(without, tuple(patterns.items()))
    return Extended(nlp, coreference) if coreference else nlp


@cache
def _rules(without, patterns):
    import spacy

    nlp = spacy.blank("en")
    nlp.meta["name"], nlp.meta["version"] = "rules", "1.0"
    if without != "sentences":
        nlp.add_pipe("sentencizer")
    if without != "entities":
        nlp.add_pipe("entity_ruler").add_patterns([{"label": label, "pattern": name} for name, label in patterns])
    return nlp


class Extended:
    """A pipeline with one more component."""

    def __init__(self, nlp, component):
        self.nlp, self.component, self.meta = nlp, component, nlp.meta

    def __call__(self, text):
        return self.component(self.nlp(text))


def fastcoref(*clusters):
    """A component that leaves what fastcoref does: clusters of [start, end) in characters; here given as words."""

    def component(parsed):
        if not parsed.has_extension("coref_clusters"):
            parsed.set_extension("coref_clusters", default=None)
        parsed._.coref_clusters = [list(_found(parsed.text, words)) for words in clusters]
        return parsed

    return component


def coreferee(*chains):
    """A component that leaves what coreferee does: chains of mentions, each with the indexes of its heads."""

    def component(parsed):
        if not parsed.has_extension("coref_chains"):
            parsed.set_extension("coref_chains", default=None)
        parsed._.coref_chains = [[SimpleNamespace(token_indexes=i) for i in chain] for chain in chains]
        return parsed

    return component


def _found(text, words):
    """Where each word begins and ends, the words in the text's order."""
    at = 0
    for word in words:
        at = text.index(word, at)
        yield at, at + len(word)
        at += len(word)
