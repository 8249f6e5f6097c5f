"""What can be wrong with an episode bag."""

from __future__ import annotations


class BagError(Exception):
    """An episode bag cannot be written, read or recovered.

    The text is one sentence that names the bag and what is wrong with it.
    """
