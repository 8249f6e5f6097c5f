"""It is the hyperbolic tangent, with its gradient."""

from __future__ import annotations

import torch

from conrft_policy.fast_tanh import tanh


def test_it_is_torchs_to_single_precision() -> None:
    x = torch.cat([torch.linspace(-12, 12, 100_001), torch.tensor([-torch.inf, -200.0, 0.0, 200.0, torch.inf])])
    kept = x.clone()
    assert (tanh(x).double() - torch.tanh(x.double())).abs().max() < 2e-7
    assert torch.equal(x, kept)
    assert tanh(torch.tensor([torch.nan])).isnan()


def test_its_gradient_is_that_of_the_tangent() -> None:
    assert torch.autograd.gradcheck(tanh, torch.linspace(-4, 4, 31, dtype=torch.float64, requires_grad=True))
