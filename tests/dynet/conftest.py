"""What the tests of the network and its training share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tiny networks are slower on several threads, and many times so beside other work."""
    torch.set_num_threads(1)
