"""Vision-language models of ``transformers`` as backbones: RoboVLM's Kosmos-2 and PaliGemma, and any other."""
