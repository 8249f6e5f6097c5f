"""Octo (Octo Model Team, RSS 2024) in plain torch: one code for every size, from ``octo-nano`` to ``octo-base``.

config.py      sizes and flags
image_stem.py  the convolutional image tokenizer
attention.py   which token may read which
model.py       the whole transformer, for training and as the reference
frozen.py      the same numbers for acting: nothing computed twice, nothing computed that is not read
int8_linear.py the blocks' matrices in 8 bits, for CPUs
backbone.py    Octo behind the seam of ``conrft_policy.backbone``

official_checkpoint.py  an official folder to a backbone's folder
official_config.py      its config.json
orbax_arrays.py         its arrays
flax_tree.py            names and shapes of the official parameter tree, and their conversion
t5_encoder.py           its text encoder
"""
