"""Vision-language-action backbones, the consistency head, and the node that acts with them."""
