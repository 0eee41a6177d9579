"""Looks at dev that wait for the stages before: their checkpoints are kept, and the best is chosen after training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from segdre_plugin.backbones.clones.stand_ins import draw_seed
from segdre_plugin.errors import SegDREError

STEP = 1e-6  # between the scores of two looks, for a script that keeps a checkpoint when its score grows


class LaterLooks:
    """Checkpoints of the looks at dev of one stage's training, which ends with the one that would have been kept.

    Attributes:
        folder: where they are.
        checkpoint: where the script writes one, whenever a score is the best so far.
        number: of the look whose checkpoint may be there.
    """

    def __init__(self, folder: Path, checkpoint: Path) -> None:
        self.folder, self.checkpoint, self.number = folder, checkpoint, 0
        folder.mkdir(exist_ok=True)
        checkpoint.unlink(missing_ok=True)  # of a process that was killed: its look comes again

    @property
    def paths(self) -> list[Path]:
        """The checkpoints that were put aside, in their order."""
        return sorted(self.folder.iterdir())

    def put_off(self, number: int | None = None) -> float:
        """Return a score above those before, with which the script keeps its weights.

        Args:
            number: greater than that of the look before; None counts on.
        """
        self.put_aside()
        self.number = self.number + 1 if number is None else number
        draw_seed()  # as reading dev does
        return STEP * self.number

    def put_aside(self) -> None:
        """Take the checkpoint that the script has written, if it has, for that of the last look."""
        if self.checkpoint.is_file():
            self.checkpoint.replace(self.folder / f"{self.number:09}")

    def best(self, score: Callable[[Path], float]) -> Path:
        """Return the checkpoint with the best score on dev, the first of equals.

        Raises:
            SegDREError: if no score is a number.
        """
        best, found = -1.0, None
        for path in self.paths:
            now = score(path)
            if now > best:
                best, found = now, path
        if found is None:
            raise SegDREError(f"{self.folder}: no checkpoint with a score on dev", "run the same command again")
        return found

    def settle(self, path: Path) -> None:
        """Make one of them the stage's checkpoint, and remove the others."""
        path.replace(self.checkpoint)
        shutil.rmtree(self.folder)
