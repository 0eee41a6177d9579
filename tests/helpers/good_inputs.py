"""What is broken in files of strangers, said another way than in the package: a slow check of mutated inputs."""

import json
import re

BROKEN = object()  # a line that is not JSON


class UnsureError(Exception):
    """The documentation leaves it open whether such an input is accepted."""


def no_constant(name):
    raise ValueError(name)


def parse(data):
    """Return the values of a file, BROKEN for lines that are not JSON; raise ValueError if it cannot be read at all."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip(b" \t\r\n"):
        raise ValueError("empty")
    if data.lstrip(b" \t\r\n")[:1] == b"[":
        try:
            values = json.loads(data.decode(), parse_constant=no_constant)
        except json.JSONDecodeError:
            json.loads(re.sub(rb"[\x0b\x0c]", b" ", data).decode(), parse_constant=no_constant)
            raise UnsureError from None  # the parser takes these two for spaces, too
        if beyond(values):
            raise UnsureError
        return [json.loads(re.sub(r"\\ud[89a-f]..", "?", json.dumps(value))) for value in values]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("UTF-16")
    try:
        return [json.loads(data.decode())]  # one document, over any number of lines
    except (ValueError, RecursionError):
        pass
    values = []
    for line in data.split(b"\n"):
        if line.strip():
            try:
                values.append(json.loads(line.decode()))
            except (ValueError, RecursionError):
                values.append(BROKEN)
    return values


def beyond(value, depth=0):
    """Return whether a list holds what its parser does not read: see segdre_plugin.data.stream."""
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 400 or any(beyond(part, depth + 1) for part in inner)
    return isinstance(value, int) and abs(value) >= 2**63


def is_text(value):
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def within(value, n):
    return type(value) is int and value in range(n)


def good_document(value, relations=None, labels=True):
    """Return whether a value is a DocRED document."""
    if type(value) is not dict or not is_text(value.get("title")):
        return False
    sents, entities = value.get("sents"), value.get("vertexSet")
    if type(sents) is not list or not sents or type(entities) is not list:
        return False
    if not all(type(sent) is list and sent and all(map(is_text, sent)) for sent in sents):
        return False
    for entity in entities:
        if type(entity) is not list or not entity:
            return False
        for mention in entity:
            if type(mention) is not dict or not is_text(mention.get("name")):
                return False
            where, pos = mention.get("sent_id"), mention.get("pos")
            if not within(where, len(sents)) or type(pos) is not list or len(pos) != 2:
                return False
            if not (within(pos[0], len(sents[where])) and within(pos[1], len(sents[where]) + 1) and pos[0] < pos[1]):
                return False
    return not labels or good_labels(value.get("labels"), len(entities), len(sents), relations)


def good_labels(labels, n_entities, n_sents, relations):
    if labels is None:
        return True
    if type(labels) is not list:
        return False
    for label in labels:
        if type(label) is not dict or not is_text(label.get("r")):
            return False
        if relations is not None and label["r"] not in relations - {"Na"}:
            return False
        h, t, evidence = (label.get(name) for name in ("h", "t", "evidence"))
        if not (within(h, n_entities) and within(t, n_entities)) or h == t:
            return False
        if evidence is not None and not (type(evidence) is list and all(within(s, n_sents) for s in evidence)):
            return False
    return True


def good_documents(values, **how):
    """Return whether all are documents, and no two have one title."""
    titles = [value["title"] for value in values if type(value) is dict and isinstance(value.get("title"), str)]
    return all(good_document(value, **how) for value in values) and len({*titles}) == len(titles)


def good_predictions(values, documents):
    """Return whether all are predictions of the documents, or none is."""
    rows = []
    for value in values:
        if type(value) is dict and type(value.get("triples")) is list:
            if not all(type(triple) is dict for triple in value["triples"]):
                return False
            rows += [{**triple, "title": value.get("title")} for triple in value["triples"]]
        else:
            rows.append(value)
    known = {d["title"]: d for d in documents}
    for row in rows:
        if type(row) is not dict or not all(isinstance(row.get(name), str) for name in ("title", "r")):
            return False
        of = known.get(row["title"])
        n, sents = (len(of["vertexSet"]), len(of["sents"])) if of else (2**80, 2**80)
        if not (within(row.get("h_idx"), n) and within(row.get("t_idx"), n)):
            return False
        evidence = row.get("evidence")
        if evidence is not None and not (type(evidence) is list and all(within(s, sents) for s in evidence)):
            return False
        score = row.get("score")
        if not (score is None or (type(score) in (int, float) and abs(score) < 1e308)):
            return False
    return not rows or any(row["title"] in known for row in rows)


def good_text(value):
    if type(value) is not dict or not (is_text(value.get("title")) and is_text(value.get("text"))):
        return False
    text, entities = value["text"], value.get("entities")
    if not text.strip() or type(entities) is not list:
        return False
    for entity in entities:
        if type(entity) is not dict or not is_text(entity.get("type", "")) or type(entity.get("mentions")) is not list:
            return False
        for span in entity["mentions"]:
            if type(span) is not list or len(span) != 2 or not all(within(end, len(text) + 1) for end in span):
                return False
            if not text[slice(*span)].strip():
                return False
        if not entity["mentions"]:
            return False
    return True


def good_texts(values):
    titles = [value["title"] for value in values if type(value) is dict and isinstance(value.get("title"), str)]
    return all(map(good_text, values)) and len({*titles}) == len(titles)


def good_relations(values):
    """Return whether this is a rel2id.json that knows P1 and P2."""
    (found,) = values
    classes = list(found.values()) if type(found) is dict else []
    if not all(type(i) is int for i in classes) or {*classes} != {*range(len(classes))}:
        return False
    zero = [name for name, i in found.items() if i == 0]
    return zero in (["Na"], ["N/A"]) and {"P1", "P2"} <= found.keys()


def good_names(values):
    """Return whether this is a rel_info.json with names of P1 and P2."""
    (found,) = values
    return type(found) is dict and all(is_text(found.get(name)) and found[name].strip() for name in ("P1", "P2"))
