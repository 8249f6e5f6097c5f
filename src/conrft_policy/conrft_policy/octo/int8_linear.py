"""A linear layer in 8 bits for CPUs, by oneDNN (whose kernels use AVX-512 VNNI or AMX where the CPU has them).

Weights are symmetric with one scale for each output channel, fixed when the layer is made. Inputs are quantised as they
come, each row by its own scale, so that a token with large values coarsens no other. Only where GELU is fused into the
layer one scale serves all rows: there the input is layer-normalised, so its rows are alike. (The result then depends on
what else is in the batch; who wants equal numbers computes one frame at a time.) Sums are 32-bit integers.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from conrft_policy.backbone import BackboneError

WEIGHT_MAX = 127
MIDDLE = 128
"""Inputs are unsigned, for oneDNN's fast kernels, so zero is in the middle."""
SMALLEST = torch.finfo(torch.float32).tiny
SMALLEST_SCALE = 1e-6


def check_int8(device: torch.device) -> None:
    """Raises BackboneError where there is no 8-bit linear layer."""
    if device.type != "cpu":
        raise BackboneError(f"precision int8 is for CPUs, not for {device}")
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        raise BackboneError("precision int8: this build of torch lacks oneDNN's quantised linear layer")


class Int8Linear(nn.Module):
    """``nn.Linear``, optionally followed by GELU in its tanh form, with 8-bit arithmetic; float32 in and out."""

    def __init__(self, linear: nn.Linear, *, gelu: bool = False) -> None:
        """``linear``: float32, on the CPU."""
        super().__init__()
        weight = linear.weight.detach()
        check_int8(weight.device)
        self.gelu = gelu
        scales = weight.abs().amax(dim=1).clamp_(min=SMALLEST) / WEIGHT_MAX
        quantised = (weight / scales[:, None]).round_().to(torch.int8)
        self.packed = nn.Buffer(torch.ops.onednn.qlinear_prepack(quantised, None))
        self.scales, self.zeros = nn.Buffer(scales), nn.Buffer(torch.zeros_like(scales, dtype=torch.int64))
        self.bias = nn.Buffer(linear.bias.detach().clone())
        # Without VNNI the sum of two 8-bit products may overflow 16 bits; an input of 7 bits keeps it within.
        self.input_max = 127 if torch.cpu._is_vnni_supported() else 63

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) float32 -> (..., out) float32."""
        rows = x.flatten(0, -2)
        if self.gelu:
            step = max(float(rows.amax()), -float(rows.amin()), SMALLEST) / self.input_max
            return self._product(_quantise(rows, 1.0 / step), step).unflatten(0, x.shape[:-1])
        steps = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True)).clamp_(min=SMALLEST)
        steps /= self.input_max
        product = self._product(_quantise(rows, steps.reciprocal()), 1.0)
        return torch.addcmul(self.bias, product, steps).unflatten(0, x.shape[:-1])

    def _product(self, quantised: Tensor, step: float) -> Tensor:
        bias, fused, form = (self.bias, "gelu", "tanh") if self.gelu else (None, "none", "")
        inputs = (quantised, step, MIDDLE, self.packed, self.scales, self.zeros, bias)
        return torch.ops.onednn.qlinear_pointwise(*inputs, 1.0, 0, torch.float32, fused, [], form)


def balanced(norm: nn.LayerNorm, linear: nn.Linear) -> tuple[nn.LayerNorm, nn.Linear]:
    """The same function of the same input, with magnitude moved from the norm's large channels into the matrix.

    A channel that the norm makes much larger than the others would take their 8 bits. This is SmoothQuant (Xiao et al.,
    2023, eq. 4 with alpha 0.5), with the norm's own weight in the place of recorded activations, so it needs no data.
    """
    channels, columns = norm.weight.detach().abs(), linear.weight.detach().abs().amax(dim=0)
    scales = (channels.clamp(min=SMALLEST_SCALE) / columns.clamp(min=SMALLEST_SCALE)).sqrt()
    norm, linear = copy.deepcopy(norm), copy.deepcopy(linear)
    with torch.no_grad():
        norm.weight.div_(scales)
        norm.bias.div_(scales)
        linear.weight.mul_(scales)
    return norm, linear


def _quantise(rows: Tensor, inverse: Tensor | float) -> Tensor:
    """Round to -127..127, then add the middle by turning the sign bit over."""
    return (rows * inverse).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(MIDDLE)
