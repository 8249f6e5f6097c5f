"""``conrft train offline`` as one of several processes: what ``torchrun`` starts in the tests."""

from __future__ import annotations

import argparse
import sys

import torch

from conrft_learner import cli

if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers(required=True))
    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))
