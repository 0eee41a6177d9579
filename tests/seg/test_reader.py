"""The reader between checked documents and features: every split once, and messages for what cannot be read."""

import gzip
import json
import os
from argparse import Namespace
from dataclasses import replace

import pytest
from seg_objects import BACKBONE, SCRIPT, corpus, reader, tokenizer

from segdre_plugin import SegDREError
from segdre_plugin.backbones.reference import train
from segdre_plugin.data.splits import load_splits
from segdre_plugin.data.synthetic.corpus import rel2id
from segdre_plugin.seg.reader import count_tokens

FILES = {"train": "train_annotated.json", "dev": "dev.json", "test": "test.json"}


@pytest.fixture
def splits(tmp_path):
    folder = corpus(tmp_path)
    return load_splits({name: folder / file for name, file in FILES.items()}, rel2id(), False)


def test_a_split_is_read_once_and_as_the_script_reads_it(splits):
    calls = []

    def read(path, *how, **more):
        calls.append(path)
        return train.read_docred(path, *how, **more)

    ours = reader(splits, read)
    found = ours(str(splits["dev"].path), tokenizer(), rel2id=rel2id())
    expected = train.read_docred(splits["dev"].path, tokenizer(), rel2id=rel2id())
    assert [feature["input_ids"] for feature in found] == [feature["input_ids"] for feature in expected]
    assert ours(str(splits["dev"].path), tokenizer(), rel2id=rel2id()) is found
    assert len(calls) == 1


def test_splits_that_the_script_does_not_ask_for_are_read_the_same_way(splits):
    ours = reader(splits, script=replace(SCRIPT, train_only=("teacher",)), read=_without_teacher)
    ours(str(splits["train"].path), tokenizer(), rel2id=rel2id(), teacher="of train only")
    ours.fill_missing()
    assert [len(split.features) for split in splits.values()] == [4, 3, 2]
    assert ours.arguments == {"rel2id": rel2id()}


def test_tokens_that_no_window_reads_are_counted(splits, capsys):
    lengths = [len(one["input_ids"]) for one in train.read_docred(splits["dev"].path, tokenizer(), rel2id())]
    shorter = replace(BACKBONE, window=max(lengths) // 2)  # of two windows' tokens three are special ones
    for backbone, found in ((BACKBONE, ""), (shorter, "dev: 1 documents have tokens between their windows, up to ")):
        splits["dev"].features = []
        reader(splits, backbone=backbone)(str(splits["dev"].path), tokenizer(), rel2id=rel2id())
        assert (found in capsys.readouterr().out) if found else capsys.readouterr().out == ""


def test_another_file_goes_to_the_scripts_own_reader(splits, tmp_path):
    ours = reader(splits, lambda path, tokenizer, **more: (path, more))
    assert ours("other.json", None, a=1) == ("other.json", {"a": 1})
    assert not splits["dev"].features


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"teacher": "of train only", "depth": 2}, "depth: expected only rel2id, max_seq_length, got 2"),
        ({"rel2id": [1]}, r"rel2id: expected dict, got \[1\]"),
    ],
)
def test_arguments_that_the_description_lacks_are_refused_before_training(splits, arguments, words):
    ours = reader(splits, lambda *_, **__: pytest.fail("read"), script=replace(SCRIPT, train_only=("teacher",)))
    with pytest.raises(SegDREError, match=words) as caught:
        ours(str(splits["train"].path), tokenizer(), **arguments)
    assert "Script.reading" in str(caught.value)
    assert "teacher" not in str(caught.value)


@pytest.mark.parametrize(
    "form",
    [
        lambda documents: json.dumps(documents, ensure_ascii=False).encode(),
        lambda documents: b"\xef\xbb\xbf" + json.dumps(documents, ensure_ascii=False, indent=2).encode(),
        lambda documents: "\n".join(json.dumps(each, ensure_ascii=False) for each in documents).encode(),
        lambda documents: gzip.compress(json.dumps(documents, ensure_ascii=False).encode()),
    ],
    ids=["list", "byte order mark", "lines", "gzip"],
)
def test_readers_get_what_no_locale_misreads(splits, form):
    path = splits["train"].path
    documents = [document | {"title": f"Vibér 中 😀 {n}"} for n, document in enumerate(splits["train"].documents)]
    del documents[0]["labels"][0]["evidence"]
    documents[1]["labels"] = documents[2]["labels"]
    del documents[2]["labels"]
    path.write_bytes(form(documents))
    found = []

    def read(path, *_, **__):
        for encoding in ("ascii", "latin-1", "gbk", "utf-8"):
            with open(path, encoding=encoding) as file:
                found.append(json.load(file))
        raise SegDREError("enough")

    again = load_splits({"train": path}, rel2id(), False)
    with pytest.raises(SegDREError, match="enough"):
        reader(again, read)(str(path), tokenizer())
    documents[0]["labels"][0]["evidence"] = []
    assert found == [documents] * 4
    with pytest.raises(UnicodeDecodeError):  # negative control: the user's own file would be misread
        path.read_text(encoding="ascii")


@pytest.mark.parametrize("name", ["-", "pipe"])
def test_a_pipe_is_refused(splits, tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SegDREError, match="is not a file: a run reads its data more than once"):
        load_splits({"train": tmp_path / name}, rel2id(), False)


class TestSignatures:
    """Readers that take other arguments, or give more than features."""

    def test_arguments_in_another_order(self, splits):
        seen = []

        def read(args, path, tokenizer, depth, *, rel2id):
            seen.append((args.seed, depth))
            return train.read_docred(path, tokenizer, rel2id)

        script = replace(SCRIPT, reads=("args", "path", "tokenizer", "depth"), reading={"depth": int, "rel2id": dict})
        ours = reader(splits, read, script=script, seed=1)
        args = Namespace(seed=2, transformer_type="bert")
        found = ours(args, str(splits["dev"].path), tokenizer(), 3, rel2id=rel2id())
        assert len(found) == len(splits["dev"].documents)
        ours.fill_missing()
        assert seen == [(2, 3)] * 3
        assert ours.arguments == {"depth": 3, "rel2id": rel2id()}

    def test_what_it_gives_besides_features_is_the_splits_own(self, splits):
        def read(*how, **more):
            found = train.read_docred(*how, **more)
            return found, len(found), "priors"

        ours = reader(splits, read)
        for name in ("train", "dev", "train"):
            found = ours(str(splits[name].path), tokenizer(), rel2id=rel2id())
            assert found == (splits[name].features, len(splits[name].documents), "priors")

    @pytest.mark.parametrize(
        "call",
        [
            lambda ours, path: ours(Namespace(), path, tokenizer()),
            lambda ours, path: ours(path),
            lambda ours, path: ours(file_in=path, tokenizer=tokenizer()),
            lambda ours, path: ours(path, tokenizer(), 1024),
        ],
    )
    def test_a_call_that_the_description_does_not_expect(self, splits, call):
        with pytest.raises(SegDREError, match=r"calls read_docred\(.*\), expected \(path, tokenizer\)") as caught:
            call(reader(splits), str(splits["dev"].path))
        assert "Script.reads" in str(caught.value)

    def test_a_reader_that_cannot_be_called_so_is_no_fault_of_the_documents(self, splits):
        def read(args, path, tokenizer):
            raise AssertionError("not called")

        with pytest.raises(SegDREError, match="cannot be called with") as caught:
            reader(splits, read)(str(splits["dev"].path), tokenizer())
        assert "Script.reads" in str(caught.value)
        assert "document" not in str(caught.value)


class TestWhatTheBackboneCannotRead:
    def test_documents_are_named_with_the_reason(self, splits):
        title = splits["dev"].documents[1]["title"]

        def read(path, *how, **more):
            found = train.read_docred(path, *how, **more)
            if any(feature["title"] == title for feature in found):
                raise KeyError("h")
            return found

        with pytest.raises(SegDREError) as caught:
            reader(splits, read)(str(splits["dev"].path), tokenizer(), rel2id=rel2id())
        assert f"document 1 {title!r}: KeyError: 'h'" in str(caught.value)
        assert "document 0" not in str(caught.value)

    def test_documents_that_are_too_long_say_so(self, splits):
        lengths = [count_tokens(document, tokenizer()) for document in splits["dev"].documents]
        limit = sorted(lengths)[1] + 1  # the two shorter ones fit

        def read(path, tokenizer, rel2id, max_seq_length):
            found = train.read_docred(path, tokenizer, rel2id)
            assert all(len(feature["input_ids"]) - 2 < max_seq_length for feature in found)
            return found

        ours = reader(splits, read, script=replace(SCRIPT, reading={"rel2id": dict, "max_seq_length": int}))
        with pytest.raises(SegDREError) as caught:
            ours(str(splits["dev"].path), tokenizer(), rel2id=rel2id(), max_seq_length=limit)
        assert f"document {lengths.index(max(lengths))} " in str(caught.value)
        assert f"{max(lengths)} tokens" in str(caught.value)
        assert str(caught.value).count("--max_seq_length") == 1

    def test_a_reader_that_fails_on_the_whole_file_alone(self, splits):
        def read(path, *how, **more):
            found = train.read_docred(path, *how, **more)
            return found if len(found) == 1 else 1 / 0

        with pytest.raises(SegDREError, match=r"reader stopped: ZeroDivisionError.*\n?.*is it the original one"):
            reader(splits, read)(str(splits["dev"].path), tokenizer(), rel2id=rel2id())

    def test_our_own_errors_pass(self, splits):
        def read(*_, **__):
            raise SegDREError("wrong", "do this")

        with pytest.raises(SegDREError, match=r"^wrong\n  -> do this$"):
            reader(splits, read)(str(splits["dev"].path), tokenizer())


@pytest.mark.parametrize("evidence", [True, False])
def test_training_without_evidence_is_announced(splits, capsys, evidence):
    for document in splits["train"].documents:
        for label in document["labels"]:
            label["evidence"] = [0] if evidence else []
    backbone = replace(BACKBONE, evidence_labels="sent_labels")

    def read(*how, **more):
        return [feature | {"sent_labels": "some"} for feature in train.read_docred(*how, **more)]

    ours = reader(splits, read, backbone)
    ours(str(splits["train"].path), tokenizer(), rel2id=rel2id())
    ours.fill_missing()
    assert {feature["sent_labels"] for feature in splits["train"].features} == {"some" if evidence else None}
    assert {feature["sent_labels"] for feature in splits["dev"].features} == {"some"}
    assert ("without the evidence loss" in capsys.readouterr().out) is not evidence


def test_tokens_are_counted_as_the_reader_makes_them(splits):
    for document in splits["train"].documents:
        (feature,) = train.read_docred(_alone(document, splits["train"].path.parent), tokenizer(), rel2id())
        assert count_tokens(document, tokenizer()) == len(feature["input_ids"]) - 2  # start and end


def _without_teacher(path, tokenizer, rel2id, teacher=None):
    assert ("train" in str(path)) == (teacher is not None)
    return train.read_docred(path, tokenizer, rel2id)


def _alone(document, folder):
    path = folder / "alone.json"
    path.write_text(json.dumps([document]))
    return path
