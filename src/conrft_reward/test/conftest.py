"""One trained classifier for all tests of this package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from drawn_episodes import QUICK, TASK, drawn_episode

from conrft_reward.training import Trained, train_and_inspect


@pytest.fixture(scope="session")
def trained() -> Trained:
    torch.set_num_threads(1)
    episodes = [drawn_episode(n, success=n % 3 != 2) for n in range(12)]
    return train_and_inspect(episodes, TASK, 0, QUICK)
