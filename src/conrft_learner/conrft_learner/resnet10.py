"""ResNet-10 of the official code: the frozen image encoder of the paper's critic.

Layer order, paddings and normalisation are those of the official network, so that its weights give its numbers. Its
strided layers pad an even size after the image only, as TensorFlow does; the first convolution alone pads both sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE_SIZE = 128
CHANNELS = 512
POSITIONS = 16  # 4 x 4
GROUPS = 4
GROUP_NORM_EPS = 1e-5
WIDTHS = (64, 128, 256, 512)
MEAN = (0.485, 0.456, 0.406)  # of ImageNet's pixels in 0..1, RGB
STANDARD_DEVIATION = (0.229, 0.224, 0.225)


class EncoderWeightsError(ValueError):
    """Weights that are missing, damaged or do not fit; the text names the file and every name that is wrong."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with group normalisation around a residual, projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        """``stride`` 1 or 2, of the first convolution."""
        super().__init__()
        self.stride = stride
        self.conv_0 = nn.Conv2d(inputs, outputs, 3, stride, padding=0 if stride == 2 else 1, bias=False)
        self.norm_0 = _norm(outputs)
        self.conv_1 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm_1 = _norm(outputs)
        self.conv_proj: nn.Conv2d | None = None
        self.norm_proj: nn.GroupNorm | None = None
        if stride != 1 or inputs != outputs:
            self.conv_proj = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.norm_proj = _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        y = self.conv_0(F.pad(x, (0, 1, 0, 1)) if self.stride == 2 else x)
        y = self.norm_1(self.conv_1(self.norm_0(y).relu_()))
        if self.conv_proj is not None and self.norm_proj is not None:
            x = self.norm_proj(self.conv_proj(x))
        return y.add_(x).relu_()


class ResNet10(nn.Module):
    """One basic block in each of four stages; frozen."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        """He-normal convolutions, as in the official code before its weights are loaded."""
        super().__init__()
        self.conv_init = nn.Conv2d(3, WIDTHS[0], 7, stride=2, padding=3, bias=False)
        self.norm_init = _norm(WIDTHS[0])
        inputs = (WIDTHS[0], *WIDTHS)
        self.blocks = nn.ModuleList(
            BasicBlock(inputs[i], width, stride=2 if i else 1) for i, width in enumerate(WIDTHS)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(STANDARD_DEVIATION).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Feature maps ``(N, 512, 4, 4)`` of RGB images ``(N, 3, 128, 128)``, 0..255, not necessarily whole numbers."""
        x = (pixels / 255.0 - self.mean) / self.deviation
        # Channels last is what the CPU's convolutions are fastest in.
        x = self.norm_init(self.conv_init(x.contiguous(memory_format=torch.channels_last))).relu_()
        # With ceil_mode the last window hangs over the end: the padding that TensorFlow calls SAME.
        x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
        for block in self.blocks:
            x = block(x)
        return x

    @property
    def fingerprint(self) -> str:
        """sha256 over all weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def load_weights(self, weights: Mapping[str, Tensor], source: str) -> None:
        """Takes weights by this module's names; EncoderWeightsError lists all that are missing, extra or misshapen."""
        own = self.state_dict()
        missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
        misshapen = [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(own[name].shape)}"
            for name in sorted(set(own) & set(weights))
            if weights[name].shape != own[name].shape
        ]
        found = {"missing": missing, "extra": extra, "wrong shape": misshapen}
        complaints = [f"{kind}: {', '.join(names)}" for kind, names in found.items() if names]
        if complaints:
            raise EncoderWeightsError(f"{source}: weights do not fit ResNet-10; {'; '.join(complaints)}")
        self.load_state_dict({name: value.float() for name, value in weights.items()})

    def load_flax(self, parameters: Mapping[str, NDArray[np.float32]], source: str = "Flax tree") -> None:
        """Takes the official tree, ``conv_init/kernel`` and so on (kernels HWIO); raises EncoderWeightsError."""
        self.load_weights({torch_name(path): _torch_layout(path, value) for path, value in parameters.items()}, source)


def torch_name(path: str) -> str:
    """Name in :class:`ResNet10` of a parameter of the official tree; one that is unknown stays as it is."""
    *modules, kind = path.split("/")
    names = {"Conv_0": "conv_0", "Conv_1": "conv_1", "MyGroupNorm_0": "norm_0", "MyGroupNorm_1": "norm_1"}
    kinds = {"kernel": "weight", "scale": "weight", "bias": "bias"}
    if kind not in kinds:
        return path
    return ".".join([*(names.get(m, m.replace("ResNetBlock_", "blocks.")) for m in modules), kinds[kind]])


def load_resnet10(path: Path | str) -> ResNet10:
    """A ResNet-10 with the weights of a safetensors file, by this module's names or by the official tree's.

    Raises:
        EncoderWeightsError: the file is missing or damaged, or a weight is missing, extra or has the wrong shape.
    """
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise EncoderWeightsError(f"{path}: weights missing, cut off or damaged ({error})") from error
    network = ResNet10()
    if any("/" in name for name in weights):
        network.load_flax({name: value.float().numpy() for name, value in weights.items()}, str(path))
    else:
        network.load_weights(weights, str(path))
    return network


def random_resnet10(seed: int = 0) -> ResNet10:
    """A ResNet-10 that has learned nothing, the same for every run with one seed; global random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet10()


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, channels, eps=GROUP_NORM_EPS)


def _torch_layout(path: str, value: NDArray[np.float32]) -> Tensor:
    tensor = torch.from_numpy(np.array(value, dtype=np.float32))
    return tensor.permute(3, 2, 0, 1).contiguous() if path.endswith("kernel") and tensor.ndim == 4 else tensor
