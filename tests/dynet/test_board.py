"""What TensorBoard is told: each line has one value a step, also of a run that was stopped."""

from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dynet.board import Board
from dynet.progress import Progress

LOSSES = {"between": 0.25, "S": 0.5, "2,2,2,2": 0.75}


def progress(step: int) -> Progress:
    return Progress(
        step=step, steps=9, losses=LOSSES, norm=1.0, per_second=1.0, waits=0.0, memory=1, skipped=0, batch=1
    )


def test_a_line_has_one_value_a_step_also_after_a_stop(tmp_path: Path) -> None:
    for first, steps in ((0, (1, 2, 3)), (1, (2, 3, 4))):
        board = Board(str(tmp_path), first)
        for step in steps:
            board.scalars(progress(step))
        board.close()
    told = EventAccumulator(str(tmp_path)).Reload()
    for line, loss in (("loss/S", 0.5), ("loss/2,2,2,2", 0.75), ("loss/between", 0.25)):
        assert [(one.step, one.value) for one in told.Scalars(line)] == [(step, loss) for step in (1, 2, 3, 4)]
