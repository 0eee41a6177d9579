"""The command line: every command explains itself, and a misspelled word is refused with the one that is meant."""

import pytest

from segdre_plugin.cli import COMMANDS, main
from segdre_plugin.errors import did_you_mean


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_description_and_an_example(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    help = COMMANDS[name].help
    assert f"{help[0].upper()}{help[1:]}." in " ".join(shown.split())
    assert f"\nexample: segdre {name}" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("pach .", "unknown command 'pach'\n  -> did you mean patch?\n"),
        ("eval a.json", "unknown command 'eval'\n  -> did you mean evaluate?\n"),
        ("xyz", "unknown command 'xyz'\n  -> choose from demo, patch, "),
        (
            "validate a.json --fxi=b",
            "segdre validate: unknown option --fxi\n  -> did you mean --fix?\n",
        ),
        (
            "evaluate a.json --gold b.json --comp c",
            "segdre evaluate: unknown option --comp\n  -> did you mean --compare?\n",
        ),
        ("predict b --inptu x", "segdre predict: unknown option --inptu\n  -> did you mean --input?\n"),
    ],
)
def test_misspelled_words(line, said, capsys):
    assert main(line.split()) == 2
    assert capsys.readouterr().err.startswith(f"segdre: error: {said}")


def test_did_you_mean():
    known = ["--seg-alpha", "--seg-dir", "--seg-dense-epochs"]
    assert did_you_mean("--seg-d", known) == "did you mean --seg-dir or --seg-dense-epochs?"
    assert did_you_mean("--seg_dir", known) == "did you mean --seg-dir?"
    assert did_you_mean("x", known) == "choose from --seg-alpha, --seg-dir, --seg-dense-epochs"
