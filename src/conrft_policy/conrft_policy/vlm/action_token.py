"""RoboVLM's reading of a frame: a learned action token after images and instruction, and its last hidden state.

Li et al., "Towards Generalist Robot Policies: What Matters in Building Vision-Language-Action Models",
arXiv:2412.14058: the one-step continuous formulation; with a history, the policy-head formulation, in which every frame
is read by itself and the policy's head sees the states of several frames.

The order of the tokens is [first token] [hand camera] [static camera] [instruction] [action token], all causal, as in
the authors' training. What they put after the action token cannot reach it through a causal mask and is left out.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from conrft_policy.backbone import BackboneError, Images

from .pretrained import Pretrained, transformers

ACTION_TOKEN = "action_token"
"""Name of the tensor (D,) in the file of the learned token."""

_log = logging.getLogger(__name__)


class ActionTokenReader(ABC):
    """A frozen model that reads frames for one instruction."""

    model_class: str
    """Name of the class in transformers."""
    prompt: str
    """What RoboVLM says to this model."""

    def __init__(
        self,
        pretrained: Pretrained,
        action_token: Tensor | None,
        text: str,
        cameras: tuple[str, ...],
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """Loads the model. action_token: (D,), None for zeros; text: the whole prompt; cameras: static, hand."""
        processor = pretrained.processor()
        self._image_processor = processor.image_processor
        self._model = pretrained.model(getattr(transformers(), self.model_class), dtype=dtype, device=device)
        self._dtype, self._device = dtype, device
        self._cameras = cameras[::-1]
        first, rest = self.token_ids(processor.tokenizer, text)
        with torch.inference_mode():
            embed = self._model.get_input_embeddings()
            self._first = embed(torch.tensor([[first]], device=device))
            token = torch.zeros(self._first.shape[-1]) if action_token is None else action_token
            scale = getattr(embed, "embed_scale", None)
            token = token.to(device, dtype) * (1.0 if scale is None else scale.to(device, dtype))
            self._rest = torch.cat([embed(torch.tensor([rest], device=device)), token.expand(1, 1, -1)], dim=1)

    def read(self, images: Images) -> Tensor:
        """State of the action token: images (N, H, W, 3) uint8 RGB by camera -> (N, D)."""
        pixels = torch.cat([self._pixels(images[camera]) for camera in self._cameras])
        tokens = self.image_tokens(pixels).chunk(len(self._cameras))
        frames = len(tokens[0])
        sequence = torch.cat([self._first.expand(frames, -1, -1), *tokens, self._rest.expand(frames, -1, -1)], dim=1)
        return self.last_hidden(sequence)[:, -1]

    def _pixels(self, frames: NDArray[np.uint8]) -> Tensor:
        """(N, 3, h, w) as the model takes them: squeezed to its square, normalised, by its own image processor."""
        size = self._model.config.vision_config.image_size
        values = self._image_processor(
            list(frames),
            size={"height": size, "width": size},
            do_center_crop=False,
            input_data_format="channels_last",
            return_tensors="pt",
        )["pixel_values"]
        return values.to(self._device, self._dtype)

    @staticmethod
    @abstractmethod
    def width(config: Any) -> int:
        """D, from the model's configuration."""

    @staticmethod
    @abstractmethod
    def token_ids(tokenizer: Any, text: str) -> tuple[int, list[int]]:
        """The token before the images, and those between the images and the action token."""

    @abstractmethod
    def image_tokens(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, tokens, D)."""

    @abstractmethod
    def last_hidden(self, sequence: Tensor) -> Tensor:
        """Causal language model without its head: (N, L, D) -> (N, L, D), final norm included."""


class Kosmos2Reader(ActionTokenReader):
    """Kosmos-2: ``<s>`` images ``<grounding>An image of a robot ...`` action token."""

    model_class = "Kosmos2ForConditionalGeneration"
    prompt = "<grounding>An image of a robot {instruction}"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # All latent queries see the whole image. Some releases of transformers mark this attention as causal.
        self._model.image_to_text_projection.x_attn.is_causal = False

    @staticmethod
    def width(config: Any) -> int:
        """D, from the model's configuration."""
        return int(config.text_config.embed_dim)

    @staticmethod
    def token_ids(tokenizer: Any, text: str) -> tuple[int, list[int]]:
        """``<s>``, and the text; ``</s>`` comes after the action token."""
        return int(tokenizer.bos_token_id), list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, latent queries, D)."""
        vision = self._model.vision_model
        patches = vision.model.post_layernorm(vision(pixel_values=pixels).last_hidden_state)
        tokens: Tensor = self._model.image_to_text_projection(F.normalize(patches, dim=-1))[0]
        return tokens

    def last_hidden(self, sequence: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D); embedding scale and positions are the text model's own."""
        hidden: Tensor = self._model.text_model.model(inputs_embeds=sequence, use_cache=False).last_hidden_state
        return hidden


class PaliGemmaReader(ActionTokenReader):
    """PaliGemma: ``<eos>`` images instruction, action token; the newline that ends a prompt comes after it."""

    model_class = "PaliGemmaForConditionalGeneration"
    prompt = "{instruction}"

    @staticmethod
    def width(config: Any) -> int:
        """D, from the model's configuration."""
        return int(config.text_config.hidden_size)

    @staticmethod
    def token_ids(tokenizer: Any, text: str) -> tuple[int, list[int]]:
        """``<eos>``, which RoboVLM puts first, and the text as it is cut before a newline."""
        ids = list(tokenizer(f"{text}\n", add_special_tokens=False)["input_ids"])
        return int(tokenizer.eos_token_id), ids[:-1]

    def image_tokens(self, pixels: Tensor) -> Tensor:
        """(N, 3, h, w) -> (N, patches, D)."""
        model = self._model.model
        tokens: Tensor = model.multi_modal_projector(model.vision_tower(pixels).last_hidden_state)
        return tokens

    def last_hidden(self, sequence: Tensor) -> Tensor:
        """(N, L, D) -> (N, L, D).

        The mask is spelt out: PaliGemma alone would let image and prompt see what follows them, RoboVLM's training did
        not.
        """
        length = sequence.shape[1]
        mask = torch.full((length, length), torch.finfo(self._dtype).min, dtype=self._dtype, device=self._device)
        hidden: Tensor = self._model.model.language_model(
            inputs_embeds=sequence, attention_mask=mask.triu(1).expand(len(sequence), 1, -1, -1), use_cache=False
        ).last_hidden_state
        return hidden


READERS: dict[str, type[ActionTokenReader]] = {"kosmos-2": Kosmos2Reader, "paligemma": PaliGemmaReader}
"""By ``model_type`` in the model's config.json."""


def reader_class(pretrained: Pretrained) -> type[ActionTokenReader]:
    """What reads this model; BackboneError names what RoboVLM's formulation is known for."""
    kind = pretrained.config.model_type
    if kind not in READERS:
        raise BackboneError(
            f"{pretrained.folder}: model type {kind!r} has no action token; known: {sorted(READERS)}. "
            'Any other model is read with "architecture": "transformers"'
        )
    return READERS[kind]


def load_action_token(path: Path | None, width: int) -> Tensor | None:
    """The learned token (D,) in float32; None, and a warning, where there is no file."""
    if path is None:
        _log.warning("no action token was learned for this model: zeros stand in its place, where training starts")
        return None
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BackboneError(f"{path}: action token missing, cut off or damaged ({error})") from error
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != {ACTION_TOKEN: (width,)}:
        raise BackboneError(f"{path}: holds {shapes}, the model needs {ACTION_TOKEN!r} of shape {(width,)}")
    return tensors[ACTION_TOKEN].float()
