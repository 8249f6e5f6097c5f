"""Arrays of an Orbax checkpoint, read with TensorStore alone: neither Orbax nor JAX is needed.

Three layouts are in the wild. One file-set an array: a folder for each, named by its path joined with dots. OCDBT: one
key-value database that holds the same folders. And arrays that a single process saved with the older Orbax: inside the
msgpack file ``checkpoint``, which stands beside the other two.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conrft_policy.backbone import BackboneError

Shape = tuple[int, ...]
DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
OCDBT_MANIFEST = "manifest.ocdbt"
AGGREGATE_FILE = "checkpoint"
METADATA_FILE = "_METADATA"
PLACEHOLDER = "PLACEHOLDER://"
NDARRAY_EXTENSION, SCALAR_EXTENSION = 1, 3  # of flax.serialization's msgpack


class OrbaxError(BackboneError):
    """A checkpoint that is not there, not complete, or cannot be read; the message names folder or array."""


@dataclass(frozen=True)
class OrbaxArrays(Mapping[str, NDArray[np.float32]]):
    """The arrays of one checkpoint by their path joined with slashes; each is read when it is asked for."""

    folder: Path
    stored: Mapping[str, Any]
    """An open tensorstore.TensorStore, or a numpy array, by name."""

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        """Read one array as float32; OrbaxError names it if its data is missing or damaged."""
        source = self.stored[name]
        try:
            values = source if isinstance(source, np.ndarray) else source.read().result()
        except (ValueError, RuntimeError) as error:
            raise OrbaxError(f"{self.folder}: array {name} is damaged or incomplete ({_first_line(error)})") from error
        return np.asarray(values).astype(np.float32)

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self.stored)

    def __contains__(self, name: object) -> bool:
        """Whether there is such an array, nothing read."""
        return name in self.stored

    def __len__(self) -> int:
        """How many arrays."""
        return len(self.stored)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of each array, nothing read."""
        return {name: tuple(int(n) for n in source.shape) for name, source in self.stored.items()}


def find_arrays(checkpoint: Path, step: int | None = None) -> Path:
    """The folder with the arrays of one step of a CheckpointManager's folder: ``<step>/default``, the newest if None.

    Raises OrbaxError that lists the steps.
    """
    steps = sorted(int(entry.name) for entry in checkpoint.iterdir() if entry.name.isdigit() and entry.is_dir())
    if not steps or (step is not None and step not in steps):
        wanted = "no step" if step is None else f"no step {step}"
        raise OrbaxError(f"{checkpoint}: {wanted} of a checkpoint (finished steps: {steps or 'none'})")
    root = checkpoint / str(steps[-1] if step is None else step)
    candidates = [root / "default", root, *sorted(entry for entry in root.iterdir() if entry.is_dir())]
    for folder in candidates:
        if _is_array_folder(folder):
            return folder
    raise OrbaxError(f"{root}: no arrays in it: the checkpoint is incomplete, or not of Orbax")


def open_arrays(folder: Path) -> OrbaxArrays:
    """Open every array in ``folder``, in whichever layout. Raises OrbaxError."""
    complete = _stores_every_chunk(folder)
    kvstore: dict[str, Any]
    stored: dict[str, Any] = dict(_aggregated(folder / AGGREGATE_FILE))
    if (folder / OCDBT_MANIFEST).is_file():
        kvstore = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{folder.resolve()}/"}}
        stored |= _open_all(folder, _ocdbt_arrays(folder, kvstore), complete, kvstore)
    else:
        kvstore = {"driver": "file", "path": f"{folder.resolve()}/"}
        stored |= _open_all(folder, _file_arrays(folder), complete, kvstore)
    if not stored:
        raise OrbaxError(f"{folder}: holds no array")
    return OrbaxArrays(folder, stored)


def _is_array_folder(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    single = (folder / OCDBT_MANIFEST).is_file() or (folder / AGGREGATE_FILE).is_file()
    return single or any((entry / marker).is_file() for entry in folder.iterdir() for marker in DRIVERS)


def _stores_every_chunk(folder: Path) -> bool:
    """True where Orbax says that it left no chunk out; older versions leave out what is zero."""
    try:
        metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(metadata.get("store_array_data_equal_to_fill_value", False))


def _file_arrays(folder: Path) -> dict[str, str]:
    """Driver of each array that has a folder of its own."""
    return {
        entry.name: driver
        for entry in sorted(folder.iterdir())
        for marker, driver in DRIVERS.items()
        if (entry / marker).is_file()
    }


def _ocdbt_arrays(folder: Path, kvstore: dict[str, Any]) -> dict[str, str]:
    """Driver of each array in an OCDBT database."""
    tensorstore = _import("tensorstore")
    try:
        keys = [key.decode() for key in tensorstore.KvStore.open(kvstore).result().list().result()]
    except (ValueError, RuntimeError) as error:
        raise OrbaxError(f"{folder}: the database is damaged or incomplete ({_first_line(error)})") from error
    parts = [key.rpartition("/") for key in keys]
    return {name: DRIVERS[marker] for name, _, marker in parts if marker in DRIVERS}


def _open_all(folder: Path, drivers: Mapping[str, str], complete: bool, kvstore: dict[str, Any]) -> dict[str, Any]:
    tensorstore = _import("tensorstore")
    context = tensorstore.Context()
    opened: dict[str, Any] = {}
    for name, driver in drivers.items():
        base = kvstore.get("path", "")
        spec: dict[str, Any] = {"driver": driver, "kvstore": {**kvstore, "path": f"{base}{name}/"}}
        if complete:
            spec["fill_missing_data_reads"] = False
        opened[name.replace(".", "/")] = tensorstore.open(spec, context=context, open=True, read=True)
    try:
        return {name: future.result() for name, future in opened.items()}
    except (ValueError, RuntimeError) as error:
        raise OrbaxError(f"{folder}: an array cannot be opened ({_first_line(error)})") from error


def _aggregated(path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    """Arrays inside the msgpack file, if there is one; what it only refers to stands in files."""
    if not path.is_file():
        return
    msgpack = _import("msgpack")
    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_extension, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack's exceptions have no common base but Exception
        raise OrbaxError(f"{path}: damaged or incomplete ({_first_line(error)})") from error
    yield from _leaves(tree, "", path)


def _leaves(tree: Any, prefix: str, path: Path) -> Iterator[tuple[str, NDArray[Any]]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}/{key}" if prefix else str(key), path)
    elif isinstance(tree, np.ndarray):
        yield prefix, tree
    elif not (isinstance(tree, str) and tree.startswith(PLACEHOLDER)) and tree is not None:
        raise OrbaxError(f"{path}: {prefix} is no array but {type(tree).__name__}")


def _extension(code: int, data: bytes) -> Any:
    if code not in (NDARRAY_EXTENSION, SCALAR_EXTENSION):
        raise ValueError(f"extension type {code}")
    shape, dtype, values = _import("msgpack").unpackb(data, raw=True)
    name = dtype.decode()
    if name == "bfloat16":  # the upper half of a float32
        wide = np.frombuffer(values, np.uint16).astype(np.uint32) << 16
        return wide.view(np.float32).reshape(shape)
    return np.frombuffer(values, np.dtype(name)).reshape(shape)


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise OrbaxError(f"reading a checkpoint needs {module!r}: pip install tensorstore msgpack") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
