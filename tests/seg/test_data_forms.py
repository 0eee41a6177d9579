"""``--seg`` on clones, whose readers open files: a data file of any form, in any locale, makes the same run."""

import gzip
import json
import subprocess
import sys

import pytest
from processes import environment
from seg_runs import contents

pytestmark = [pytest.mark.upstream, pytest.mark.slow]
MARKED, PACKED = "{}_mark.json", "{}.jsonl.gz"
FORMS = {"atlop": (MARKED, PACKED, MARKED), "dreeam": (PACKED, MARKED, PACKED)}  # of train, dev and test
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("backbone", ["atlop", "dreeam"])
def test_forms_and_locales(request, backbone):
    place = request.getfixturevalue(f"{backbone}_place")
    data = place.folder / "data"
    for name in ("train_annotated", "dev", "test"):
        documents = [
            document | {"sents": [["é中", *document["sents"][0][1:]], *document["sents"][1:]]}
            for document in place.documents(name)
        ]
        text = json.dumps(documents, ensure_ascii=False)
        (data / f"plain_{name}.json").write_text(text, encoding="utf-8")
        (data / f"{name}_mark.json").write_text(text, encoding="utf-8-sig")
        lines = "\n".join(json.dumps(document, ensure_ascii=False) for document in documents)
        (data / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))

    def stage(out, forms):
        files = {"train_file": "train_annotated", "dev_file": "dev", "test_file": "test"}
        chosen = zip(files.items(), forms, strict=True)
        named = [part for (flag, name), form in chosen for part in (f"--{flag}", form.format(name))]
        return ["--seg-dir", out, "--seg-stage", "base", *named]

    place.run(*stage("plain", ("plain_{}.json",) * 3))
    ended = subprocess.run(  # Python reads its locale as it starts
        [sys.executable, place.upstream.script, *place.seg(*stage("other", FORMS[backbone]))],
        cwd=place.folder,
        env=environment() | ASCII,
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr.decode()[-2000:]
    plain, other = (contents(place.folder / out / "base") for out in ("plain", "other"))
    data = [json.loads(run.pop("settings.json"))["data"] for run in (plain, other)]
    assert all(data[0][split] != data[1][split] for split in ("train", "dev", "test"))  # of the user's files
    assert other == plain
