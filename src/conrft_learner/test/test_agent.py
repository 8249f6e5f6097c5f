"""What the actor clones."""

from __future__ import annotations

import torch

from conrft_learner.agent import worth_imitating


def test_only_what_led_to_a_success_by_itself_is_cloned_and_the_weights_have_mean_one() -> None:
    bounds = torch.tensor([4.0, -1.0, float("-inf"), 2.0])
    assert worth_imitating(bounds).tolist() == [2.0, 0.0, 0.0, 2.0]


def test_a_batch_without_successes_clones_nothing() -> None:
    assert worth_imitating(torch.tensor([-1.0, float("-inf")])).tolist() == [0.0, 0.0]
