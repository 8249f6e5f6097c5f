"""Noise levels of a consistency model, its boundary scalings and the weights of its denoising loss.

Karras et al. 2022 (arXiv:2206.00364), equation 5 and section 5; Song et al. 2023 (arXiv:2303.01469), appendix C.
The roundings follow the official ConRFT code in float32, because its time embedding multiplies ln t by 250: one unit in
the last place of t is then visible.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def karras_levels(sigma_min: float, sigma_max: float, rho: float, count: int) -> Tensor:
    """Noise levels ``(count,)`` float32, falling from ``sigma_max`` to ``sigma_min`` evenly in ``sigma^(1/rho)``."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    ramp = np.arange(count, dtype=np.float32) / np.float32(count - 1)
    root = np.float32(high) + ramp * np.float32(low - high)
    return torch.from_numpy((root.astype(np.float64) ** rho).astype(np.float32))


def boundary_scalings(t: Tensor, *, sigma_data: float, sigma_min: float) -> tuple[Tensor, Tensor, Tensor]:
    """``c_skip, c_out, c_in`` of any shape: ``D = c_out F(c_in x, t) + c_skip x`` is the identity at ``sigma_min``."""
    variance = t**2 + sigma_data**2
    c_skip = sigma_data**2 / ((t - sigma_min) ** 2 + sigma_data**2)
    c_out = sigma_data * (t - sigma_min) / torch.sqrt(variance)
    return c_skip, c_out, 1 / torch.sqrt(variance)


def denoising_weight(t: Tensor, *, sigma_data: float, scheme: str = "karras") -> Tensor:
    """Weight of the squared denoising error at noise level t.

    Args:
        t: noise levels, any shape, > 0.
        sigma_data: standard deviation of the data.
        scheme: ``karras`` t^-2 + sigma_data^-2, ``snr`` t^-2, ``snr+1`` t^-2 + 1, or ``uniform`` 1.
    """
    ratio = t**-2
    if scheme == "karras":
        return ratio + 1 / sigma_data**2
    if scheme == "snr":
        return ratio
    if scheme == "snr+1":
        return ratio + 1
    if scheme == "uniform":
        return torch.ones_like(t)
    raise ValueError(f"unknown weighting {scheme!r}: karras, snr, snr+1 or uniform")
