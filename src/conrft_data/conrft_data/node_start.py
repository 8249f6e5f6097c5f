"""What the process of a node does before anything else: it heeds stop signals while its modules are still loaded."""

from __future__ import annotations

import importlib
import os
import signal


def start(module: str) -> None:
    """Imports ``module`` and calls its ``main``; until that heeds signals itself, SIGINT and SIGTERM end the process.

    The imports of a node take seconds. A Ctrl-C in this time ends it at once with code 0 and without a word: nothing
    has begun that would have to be ended. This module itself must import nothing that takes time.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))
    importlib.import_module(module).main()
