"""Memory that is kept: a second turn with blocks of its size asks the system for none."""

from __future__ import annotations

import subprocess
import sys

import pytest

from dynet import memory

TURNS = """
import resource, sys, torch
from dynet import memory

if sys.argv[1] == "kept" and not memory.keep_freed():
    sys.exit("another C library")

def turn():
    blocks = [torch.ones(16 << 20) for _ in range(3)]  # 64 MB each

for _ in range(10):  # until the heap has the shape of a turn
    turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    """Pages that four turns over three blocks of 64 MB had the system find."""
    done = subprocess.run([sys.executable, "-c", TURNS, word], capture_output=True, text=True, timeout=120)
    if done.stderr.strip() == "another C library":
        pytest.skip("the C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
def test_blocks_that_were_freed_are_taken_again_without_the_system() -> None:
    assert faults("kept") * 20 < faults("left")


def test_it_may_be_asked_for_again_and_again() -> None:
    assert memory.keep_freed() == memory.keep_freed()
