"""Tiny vision-language models of the true classes, with random weights, saved as their makers' tools save them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

transformers = pytest.importorskip("transformers")

WIDTH = 32
"""Of the hidden states of every model here."""
PATCHES = {"image_size": 28, "patch_size": 14}
TEXT = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
CHAT = (
    "{% for turn in messages %}<user>{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<end>{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
)


def byte_tokenizer(*special: str, bos: str = "<s>", eos: str = "</s>", framed: bool = False) -> Any:
    """One token a byte, and the special ones; ``framed``: a text is put between bos and eos."""
    names = [bos, "<pad>", eos, "<unk>", *special]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: index for index, name in enumerate([*names, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if framed:
        ends = [(bos, vocabulary[bos]), (eos, vocabulary[eos])]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A {eos}", special_tokens=ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=eos,
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=list(special),
    )


def kosmos2_processor() -> Any:
    """CLIP's image processor and a tokenizer that frames a text, as Kosmos-2 has them."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    return transformers.Kosmos2Processor(images, byte_tokenizer(framed=True), num_patch_index_tokens=4)


def paligemma_processor() -> Any:
    """SigLIP's image processor and a tokenizer with ``<image>``, as PaliGemma has them."""
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    images = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    tokenizer = byte_tokenizer("<image>", bos="<bos>", eos="<eos>")
    return transformers.PaliGemmaProcessor(images, tokenizer)


def save_kosmos2(folder: Path) -> Path:
    """Kosmos-2."""
    processor = kosmos2_processor()
    text = {"vocab_size": len(processor.tokenizer), "embed_dim": WIDTH, "layers": 2, "ffn_dim": 48}
    text |= {"attention_heads": 4, "max_position_embeddings": 512}
    config = transformers.Kosmos2Config(text_config=text, vision_config={**VISION, **PATCHES}, latent_query_num=4)
    return _save(folder, transformers.Kosmos2ForConditionalGeneration(config), processor)


def save_paligemma(folder: Path) -> Path:
    """PaliGemma."""
    processor = paligemma_processor()
    size = len(processor.tokenizer)
    config = transformers.PaliGemmaConfig(
        text_config={"model_type": "gemma", "vocab_size": size, "num_key_value_heads": 1, "head_dim": 8, **TEXT},
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION, **PATCHES},
        image_token_index=processor.image_token_id,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    return _save(folder, transformers.PaliGemmaForConditionalGeneration(config), processor)


def save_llava(folder: Path) -> Path:
    """LLaVA: no chat template."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    tokenizer = byte_tokenizer("<image>")
    config = transformers.LlavaConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 2, **TEXT},
        vision_config={"model_type": "clip_vision_model", "projection_dim": 24, **VISION, **PATCHES},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    processor = transformers.LlavaProcessor(
        images, tokenizer, patch_size=14, vision_feature_select_strategy="default", num_additional_image_tokens=1
    )
    return _save(folder, transformers.LlavaForConditionalGeneration(config), processor)


def save_qwen(folder: Path) -> Path:
    """Qwen2.5-VL: a chat template, positions in three dimensions, a processor that also wants videos."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    marks = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<user>", "<end>", "<answer>")
    tokenizer = byte_tokenizer(*marks)
    start, end, image, video = (tokenizer.convert_tokens_to_ids(mark) for mark in marks[:4])
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
            "bos_token_id": 0,
            "eos_token_id": 2,
            **TEXT,
        },
        vision_config={"depth": 2, "hidden_size": 24, "intermediate_size": 48, "num_heads": 2, "patch_size": 8,
                       "out_hidden_size": WIDTH, "fullatt_block_indexes": [1], "window_size": 32},
        image_token_id=image,
        video_token_id=video,
        vision_start_token_id=start,
        vision_end_token_id=end,
    )  # fmt: skip
    tokenizer.chat_template = CHAT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    images = Qwen2VLImageProcessorPil(min_pixels=32 * 32, max_pixels=32 * 32, patch_size=8, merge_size=2)
    _save(folder, transformers.Qwen2_5_VLForConditionalGeneration(config), tokenizer)
    images.save_pretrained(folder)
    return folder


def save_smolvlm(folder: Path) -> Path:
    """SmolVLM: its processor also wants videos, and a package to count their frames with."""
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    tokenizer = byte_tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
    config = transformers.SmolVLMConfig(
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "num_key_value_heads": 2, **TEXT},
        vision_config={**VISION, "image_size": 32, "patch_size": 4},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=1,
    )
    tokenizer.chat_template = CHAT.replace("IMAGE", "<image>")
    sides = {"longest_edge": 32}
    images = SmolVLMImageProcessorPil(size=sides, max_image_size=sides, do_image_splitting=False)
    _save(folder, transformers.SmolVLMForConditionalGeneration(config), tokenizer)
    images.save_pretrained(folder)
    settings = {"processor_class": "SmolVLMProcessor", "image_seq_len": 16}
    (folder / "processor_config.json").write_text(json.dumps(settings))
    return folder


SAVE: dict[str, Callable[[Path], Path]] = {
    "kosmos2": save_kosmos2,
    "paligemma": save_paligemma,
    "llava": save_llava,
    "qwen": save_qwen,
    "smolvlm": save_smolvlm,
}


def _save(folder: Path, model: Any, processor: Any) -> Path:
    """Weights are drawn wider than a new model's, so that no part of an input drowns in the others."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
