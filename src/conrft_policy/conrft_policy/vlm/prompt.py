"""Any image-text-to-text model of transformers: a frame's images and the instruction as one prompt.

The embedding is the last hidden state at the prompt's last token: what the model would predict its answer from. Where
the model has a chat template the prompt is one turn of the user up to where the answer starts; else it is one image
placeholder a camera and the text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from conrft_policy.backbone import BackboneError, Images

from .pretrained import Pretrained, transformers


class PromptReader:
    """A frozen model that reads frames for one instruction."""

    prompt = "What action should the robot take to {instruction}?"

    def __init__(
        self, pretrained: Pretrained, text: str, cameras: tuple[str, ...], *, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Loads the model; text: the whole prompt."""
        self._cameras, self._dtype, self._device = cameras, dtype, device
        self._processor = pretrained.processor()
        self._text = _render(self._processor, text, len(cameras))
        whole = pretrained.model(transformers().AutoModelForImageTextToText, dtype=dtype, device=device)
        self._model = whole.base_model  # the body alone, if the class tells them apart: nobody reads its logits
        self._body_only = self._model is not whole

    @staticmethod
    def width(pretrained: Pretrained) -> int:
        """D, from the model's configuration; BackboneError for a model that is not made for this."""
        config, library = pretrained.config, transformers()
        mapping = library.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        if type(config) not in mapping or config.is_encoder_decoder:
            raise BackboneError(
                f"{pretrained.folder}: model type {config.model_type!r} is not a decoder that continues images and text"
            )
        return int(config.get_text_config().hidden_size)

    def read(self, images: Images) -> Tensor:
        """State of the prompt's last token: images (N, H, W, 3) uint8 RGB by camera -> (N, D)."""
        frames = len(images[self._cameras[0]])
        inputs = self._processor(
            text=[self._text] * frames,
            images=[[images[camera][frame] for camera in self._cameras] for frame in range(frames)],
            return_tensors="pt",
        )
        inputs.pop("labels", None)
        # Integers are tokens and sizes; only pixels are cast.
        tensors = {
            name: value.to(self._device, self._dtype) if value.is_floating_point() else value.to(self._device)
            for name, value in inputs.items()
        }
        output = self._model(**tensors, use_cache=False, output_hidden_states=not self._body_only)
        hidden: Tensor = output.last_hidden_state if self._body_only else output.hidden_states[-1]
        return hidden[:, -1]


def _render(processor: Any, text: str, images: int) -> str:
    """The prompt as text with its image placeholders."""
    tokenizer = processor.tokenizer
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if not template:
        return str(getattr(processor, "image_token", "<image>")) * images + text
    content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": text}]
    turn = [{"role": "user", "content": content}]
    # The tokenizer's method, because some processors' own wants to know about videos.
    template = template["default"] if isinstance(template, dict) else template
    return str(tokenizer.apply_chat_template(turn, chat_template=template, add_generation_prompt=True, tokenize=False))
