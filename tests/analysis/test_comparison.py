"""Paired tests over documents: against slow versions, by hand, and through ``segdre evaluate``."""

import json
import random

import numpy as np
import pytest

from segdre_plugin import SegDREError
from segdre_plugin.analysis.comparison import compare, count
from segdre_plugin.analysis.evaluate import load_predictions
from segdre_plugin.cli import main
from segdre_plugin.metrics import by_frequency, by_relation, curve_of, evaluate


def corpus(n=30, seed=0):
    """Documents with gold, and two systems that find some of it and more."""
    rng = random.Random(seed)
    documents, systems = [], ([], [])
    for i in range(n):
        entities = [[{"name": f"e{i}.{e}", "sent_id": 0, "pos": [e, e + 1]}] for e in range(4)]
        pairs = rng.sample([(h, t) for h in range(4) for t in range(4) if h != t], rng.randint(0, 5))
        labels = [{"h": h, "t": t, "r": rng.choice("pq"), "evidence": []} for h, t in pairs]
        documents.append({"title": f"d{i}", "sents": [list("abcd")], "vertexSet": entities, "labels": labels})
        for system, (found, noise) in zip(systems, ((0.8, 1), (0.5, 2)), strict=True):
            system += [
                {"title": f"d{i}", "h_idx": k["h"], "t_idx": k["t"], "r": k["r"]}
                for k in labels
                if rng.random() < found
            ]
            system += [
                {"title": f"d{i}", "h_idx": h, "t_idx": (h + 1) % 4, "r": "z"} for h in rng.sample(range(4), noise)
            ]
    return documents, *systems


def slow_f1(rows):
    correct, predicted, gold = (sum(row[k] for row in rows) for k in range(3))
    return 2 * correct / (predicted + gold) if predicted + gold else 0.0


def test_counts_sum_to_what_the_metrics_say():
    documents, first, _ = corpus()
    first += [first[0], {"title": "unknown", "h_idx": 0, "t_idx": 1, "r": "p"}]  # twice counts once
    sums = np.sum(list(count(first, documents).values()), axis=0).tolist()
    scores = evaluate(first, documents)
    assert sums == [scores["n_correct"], scores["n_predicted"], scores["n_gold"]]
    assert count(first, documents)["unknown"] == [0, 1, 0]


def test_interval_and_p_value_agree_with_slow_ones():
    documents, first, second = corpus()
    a, b = count(first, documents), count(second, documents)
    found = compare(a, b, resamples=4000)
    assert found.difference == pytest.approx(evaluate(first, documents)["f1"] - evaluate(second, documents)["f1"])
    rng = random.Random(1)
    titles = list(a)
    drawn = []
    for _ in range(4000):
        sample = [rng.choice(titles) for _ in titles]
        drawn.append(slow_f1([a[t] for t in sample]) - slow_f1([b[t] for t in sample]))
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.02)
    assert found.low < found.difference < found.high

    weak = dict(b)  # a system that differs in three documents only, so that the p-value is not tiny
    for title in titles[:3]:
        weak[title] = a[title]
    p_value = compare(weak, b, resamples=4000).p_value
    observed = abs(slow_f1(list(weak.values())) - slow_f1(list(b.values())))
    extreme = 0
    for _ in range(4000):
        swaps = [rng.random() < 0.5 for _ in titles]
        x = [b[t] if swap else weak[t] for t, swap in zip(titles, swaps, strict=True)]
        y = [weak[t] if swap else b[t] for t, swap in zip(titles, swaps, strict=True)]
        extreme += abs(slow_f1(x) - slow_f1(y)) >= observed - 1e-12
    assert p_value == pytest.approx(extreme / 4000, abs=0.05)
    assert p_value > 0.05  # the negative control: three documents prove nothing


def test_same_seed_same_numbers_and_the_other_way_round():
    documents, first, second = corpus()
    a, b = count(first, documents), count(second, documents)
    found, mirrored = compare(a, b, resamples=500), compare(b, a, resamples=500)
    assert compare(a, b, resamples=500) == found
    assert compare(a, b, resamples=500, seed=1) != found
    assert mirrored.difference == -found.difference
    assert [mirrored.low, mirrored.high] == pytest.approx([-found.high, -found.low])


def test_equal_systems_do_not_differ():
    documents, first, _ = corpus()
    counts = count(first, documents)
    found = compare(counts, counts)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_a_title_that_one_system_alone_predicts_is_resampled_too():
    documents, first, second = corpus()
    more = [*first, {"title": "unknown", "h_idx": 0, "t_idx": 1, "r": "p"}]
    found = compare(count(more, documents), count(second, documents), resamples=100)
    assert found.documents == len(documents) + 1
    assert found.f1[0] == pytest.approx(evaluate(more, documents)["f1"])


@pytest.mark.parametrize("how", [{"resamples": 0}, {"confidence": 1.0}])
def test_bad_arguments(how):
    with pytest.raises(SegDREError, match="resamples"):
        compare({"a": [0, 1, 1], "b": [1, 1, 1]}, {"a": [1, 1, 1], "b": [1, 1, 1]}, **how)
    with pytest.raises(SegDREError, match="1 documents"):
        compare({"a": [0, 1, 1]}, {"a": [1, 1, 1]})


@pytest.fixture
def files(tmp_path):
    documents, first, second = corpus()
    for name, value in (("gold", documents), ("a", first), ("b", second)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    return tmp_path, documents, first


def test_command_prints_and_writes_the_scores(files, capsys):
    folder, documents, first = files
    command = ["evaluate", str(folder / "a.json"), "--gold", str(folder / "gold.json")]
    assert main([*command, "--train", str(folder / "gold.json"), "--json", str(folder / "out.json")]) == 0
    printed = capsys.readouterr().out
    scores = evaluate(first, documents, documents)
    assert json.loads((folder / "out.json").read_text())["scores"][str(folder / "a.json")] == pytest.approx(scores)
    assert f"{100 * scores['f1']:.2f}" in printed
    assert "Evi-F1" not in printed
    assert main([*command, "--compare", str(folder / "b.json")]) == 0
    assert "confidence interval" in capsys.readouterr().out


def test_curve_and_relations(files, capsys):
    folder, documents, first = files
    rows = [row | {"score": k % 7} for k, row in enumerate(first)]
    (folder / "scored.json").write_text(json.dumps(rows))
    command = ["evaluate", str(folder / "scored.json"), "--gold", str(folder / "gold.json")]
    files = ["--train", str(folder / "gold.json"), "--json", str(folder / "out.json")]
    assert main([*command, *files, "--relations", "--compare", str(folder / "a.json")]) == 0
    printed, found = capsys.readouterr().out, json.loads((folder / "out.json").read_text())
    scored, plain = (str(folder / name) for name in ("scored.json", "a.json"))
    area = curve_of(rows, documents).area
    assert found["curves"][scored]["area"] == area
    assert f"{scored}: area under precision over recall {100 * area:.2f} %, up to recall" in printed
    assert found["curves"][plain] == {"unscored": len(first)}
    assert f"{plain}: no curve: {len(first)} of the predictions have no 'score'" in printed
    assert found["relations"][scored] == by_relation(rows, documents, documents)
    assert found["frequencies"][scored] == by_frequency(found["relations"][scored])
    lines = [line.split() for line in printed.splitlines()]
    for relation, scores in found["relations"][scored].items():
        assert [relation, f"{100 * scores.pop('f1'):.2f}", *map(str, scores.values())] in lines
    # without train documents frequencies are not known, and relations are printed on request only
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "frequencies are not known" in printed
    assert "\nrelation " not in printed


def test_some_without_a_score(files, capsys):
    folder, _, first = files
    (folder / "a.json").write_text(json.dumps([first[0] | {"score": 1}, *first[1:]]))
    assert main(["evaluate", str(folder / "a.json"), "--gold", str(folder / "gold.json")]) == 0
    assert f"no curve: {len(first) - 1} of the predictions" in capsys.readouterr().out


def test_without_gold_it_says_so(files, capsys):
    folder, documents, _ = files
    for document in documents:
        del document["labels"]
    (folder / "gold.json").write_text(json.dumps(documents))
    out = folder / "out.json"
    assert main(["evaluate", str(folder / "a.json"), "--gold", str(folder / "gold.json"), "--json", str(out)]) == 0
    assert "no gold" in capsys.readouterr().out
    assert json.loads(out.read_text())["gold"] is False
    assert "scores" not in json.loads(out.read_text())


def test_answers_of_predict_are_predictions(files, capsys):
    folder, documents, first = files
    lines = [
        json.dumps({"index": i, "title": d["title"], "triples": [p for p in first if p["title"] == d["title"]]})
        for i, d in enumerate(documents)
    ]
    (folder / "lines.jsonl").write_text("\n".join(lines))
    for name in ("lines.jsonl", "a.json"):
        assert main(["evaluate", str(folder / name), "--gold", str(folder / "gold.json")]) == 0
    one, other = (part.splitlines()[1].split()[1:] for part in capsys.readouterr().out.split("30 documents")[1:])
    assert one == other


def test_bad_files_end_in_a_message(files, capsys):
    folder, _, first = files
    (folder / "bad.json").write_text(json.dumps([*first, {"title": "d0", "h_idx": 9, "t_idx": 1, "r": "p"}]))
    (folder / "lines.jsonl").write_text('{"title": "d0"}\n{"title": \n')
    for name, words in (("bad.json", "'h_idx' must be an index below 4"), ("lines.jsonl", "line 1: not JSON")):
        assert main(["evaluate", str(folder / name), "--gold", str(folder / "gold.json")]) == 2
        assert words in capsys.readouterr().err
    command = ["evaluate", str(folder / "a.json"), "--gold", str(folder / "gold.json")]
    assert main([*command, "--compare", str(folder / "a.json")]) == 2
    assert "the predictions themselves" in capsys.readouterr().err
    for output, words in (
        (folder / "nowhere" / "out.json", "no folder"),
        (folder / "gold.json", "one of the files that are read"),
        (folder, "is not a file"),
    ):
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert main([*command, "--json", str(output)]) == 2
        said = capsys.readouterr()
        assert f"--json {output}" in said.err
        assert words in said.err
        assert not said.out  # refused before anything is scored
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


class TestWhatCannotBeRight:
    def say(self, files, capsys, rows):
        """Return what the command says of some predictions, and its exit status."""
        folder, *_ = files
        (folder / "rows.json").write_text(json.dumps(rows))
        status = main(["evaluate", str(folder / "rows.json"), "--gold", str(folder / "gold.json")])
        said = capsys.readouterr()
        return status, said.err if status else said.out

    def test_nothing_is_said_of_good_ones(self, files, capsys):
        status, said = self.say(files, capsys, [row for row in files[2] if row["r"] in "pq"])
        assert status == 0
        assert "count as wrong" not in said

    @pytest.mark.parametrize("broken", [3, "d0", None, ["d0", 0, 1, "p"]])
    def test_triples_that_are_not_objects_are_refused(self, files, capsys, broken):
        lines = [{"title": "d0", "triples": [{"h_idx": 0, "t_idx": 1, "r": "p"}, broken]}]
        status, said = self.say(files, capsys, lines)
        assert status == 2
        assert f"line 0: triples[1]: expected an object, got {type(broken).__name__}" in said

    def test_a_line_says_whose_its_triples_are(self, files, capsys):
        lines = [{"title": "d0", "triples": [{"title": "d1", "h_idx": 0, "t_idx": 1, "r": "p"}]}]
        (files[0] / "lines.json").write_text(json.dumps(lines))
        assert load_predictions(files[0] / "lines.json") == [{"title": "d0", "h_idx": 0, "t_idx": 1, "r": "p"}]

    def test_another_split(self, files, capsys):
        status, said = self.say(files, capsys, [row | {"title": f"other {row['title']}"} for row in files[2]])
        assert status == 2
        assert "no prediction is of a document with gold: their titles are such as 'other d" in said

    @pytest.mark.parametrize(
        ("field", "value", "words"),
        [
            ("title", "other", "titles that no document has (is some of it another split?), such as 'other'"),
            ("r", "located in", "a relation that no label has (names in place of ids?), such as 'located in'"),
            ("r", "Na", "the relation NA (leave these rows out), such as 'Na'"),
            ("r", "N/A", "the relation NA (leave these rows out), such as 'N/A'"),
        ],
    )
    def test_some_rows(self, files, capsys, field, value, words):
        good = [row for row in files[2] if row["r"] in "pq"]
        rows = [*good, *({"title": "d0", "h_idx": 0, "t_idx": 1, "r": "p"} | {field: value} for _ in range(3))]
        status, said = self.say(files, capsys, rows)
        assert status == 0
        assert f"3 of {len(rows)} predictions have {words}: they count as wrong" in said
        assert said.count("count as wrong") == 1


def test_validate_lists_everything_and_counts_what_is_there(files, capsys):
    folder, documents, _ = files
    triples = sum(len(d["labels"]) for d in documents)
    assert main(["validate", str(folder / "gold.json")]) == 0
    assert f"30 documents, 120 entities, 120 mentions, {triples} triples" in capsys.readouterr().out
    (folder / "lines.jsonl").write_text("\n".join(json.dumps(document) for document in documents))
    assert main(["validate", str(folder / "lines.jsonl")]) == 0
    for document in documents:
        document["sents"] = []
    (folder / "gold.json").write_text(json.dumps(documents))
    assert main(["validate", str(folder / "gold.json")]) == 2
    message = capsys.readouterr().err
    assert "30 problems" in message
    assert all(f"document {i} 'd{i}': sents" in message for i in range(30))


def test_validate_knows_relations_if_told(files, capsys):
    folder, documents, _ = files
    (folder / "rel2id.json").write_text(json.dumps({"Na": 0, "p": 1}))
    n = sum(k["r"] == "q" for d in documents for k in d["labels"])
    assert main(["validate", str(folder / "gold.json"), "--rel2id", str(folder / "rel2id.json")]) == 2
    assert f"{n} problems" in capsys.readouterr().err
