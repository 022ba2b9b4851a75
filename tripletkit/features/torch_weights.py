"""Read old-style PyTorch state dicts as NumPy arrays, without PyTorch.

Such a file is five pickles in a row (magic number, protocol version, system facts, the state
dict with every tensor's storage left open, the list of storage keys), then the storages' raw
bytes. A pickle is a program that may call anything, so it is run by an unpickler to which only
the few names that a tensor needs exist.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tripletkit.errors import WeightsError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_N_SIZE_BYTES = 8

_STORAGE_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "|b1",
}


def read_state_dict(path: Path | str) -> dict[str, np.ndarray]:
    """Read the tensors of an old-style (before PyTorch 1.6, not zipped) state dict.

    No code from the file runs, and PyTorch need not be installed. A file made for it can still
    use up time, memory or the interpreter's stack, so take weights from a source you know.

    Args:
        path: the file, usually `*.pth`.
    Returns:
        Name to read-only array, in the file's order, in the tensors' own shapes and dtypes.
        Tensors that share a storage share memory.
    Raises:
        WeightsError: if the file cannot be read, is cut short, or holds anything but tensors.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path}: expected a PyTorch state dict, got {error.strerror or error}."
        ) from error
    try:
        return _parse(data)
    # A broken pickle may raise nearly anything: EOFError, IndexError, OverflowError, MemoryError...
    except Exception as error:
        raise WeightsError(
            f"{path}: expected an old-style PyTorch state dict (tensors only), "
            f"got a file of {len(data):,} bytes that is not one: "
            f"{str(error) or type(error).__name__}. "
            "It may be cut short or damaged: fetch it again."
        ) from error


def _parse(data: bytes) -> dict[str, np.ndarray]:
    if data.startswith(b"PK"):
        _refuse(
            "this is the newer zip form; write it again with "
            "torch.save(..., _use_new_zipfile_serialization=False)"
        )
    stream = io.BytesIO(data)
    if _load(stream) != _MAGIC_NUMBER:
        _refuse("the magic number is not PyTorch's")
    if _load(stream) != _PROTOCOL_VERSION:
        _refuse(f"the protocol version is not {_PROTOCOL_VERSION}")
    facts = _load(stream)
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        _refuse("it was not written by a little-endian machine")

    tensors = _load(stream)
    if not isinstance(tensors, dict):
        _refuse(f"it holds one {type(tensors).__name__}, not names with their tensors")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            _refuse(
                f"it maps {type(name).__name__} to {type(tensor).__name__}, not names to tensors"
            )
    storages = _read_storages(stream, tensors)
    return {name: _make_array(name, tensor, storages) for name, tensor in tensors.items()}


class _Storage(NamedTuple):
    """Where a tensor's numbers will be found: what the file's persistent ids say."""

    key: str
    dtype: str
    n_elements: int


class _StateDict(dict):
    """Stands in for `collections.OrderedDict` while unpickling."""

    # Drops the attributes that PyTorch hangs on it (module versions). Defined here so that a
    # file cannot set attributes of the instance or, through the class, of its methods.
    def __setstate__(self, state: Any) -> None:
        return None


class _Tensor(NamedTuple):
    """The arguments of `torch._utils._rebuild_tensor_v2`, kept until the storages are read."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    requires_grad: bool
    backward_hooks: Any
    metadata: Any = None

    def __setstate__(self, state: Any) -> None:
        _refuse("it changes a tensor after making it")


# The storage types become plain strings, and the classes have a `__setstate__`: so nothing that
# the unpickler hands out can be altered by the file for those who read after it.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _StateDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    **{("torch", name): dtype for name, dtype in _STORAGE_DTYPES.items()},
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            _refuse(f"it asks for {f'{module}.{name}'!r}, which no tensor needs")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(dtype), str(key), str(), int(n_elements), None):
                storage = _Storage(key, dtype, n_elements)
            case _:
                _refuse("it refers to something outside that is not a tensor's storage")
        if dtype not in _STORAGE_DTYPES.values():
            _refuse(f"it has a storage of an unknown type {dtype!r}")
        return storage


def _refuse(reason: str) -> NoReturn:
    raise pickle.UnpicklingError(reason)


def _load(stream: io.BytesIO) -> Any:
    """Load the next pickle and leave the stream behind its end."""
    start = stream.tell()
    # Python's unpickler makes room for any memo number it meets: with one flipped bit that is
    # tens of gigabytes. A pickler numbers its memos upwards, so the honest ones are small.
    for n_seen, (opcode, argument, _) in enumerate(pickletools.genops(stream), start=1):
        if "PUT" in opcode.name and argument > n_seen:
            _refuse(f"memo number {argument} after {n_seen} steps")
    stream.seek(start)
    return _TensorUnpickler(stream).load()


def _read_storages(
    stream: io.BytesIO, tensors: Mapping[str, _Tensor]
) -> dict[_Storage, np.ndarray]:
    wanted = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor.storage, _Storage):
            _refuse(f"tensor {name!r} has no storage")
        if wanted.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            _refuse(f"storage {tensor.storage.key!r} is described in two ways")

    keys = _load(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        _refuse("the list of storage keys is missing")
    if sorted(keys) != sorted(wanted):
        _refuse("the storages that it lists are not those that its tensors use")

    storages = {}
    for key in keys:
        storage = wanted[key]
        n_elements = int.from_bytes(_take(stream, _N_SIZE_BYTES), "little", signed=True)
        if n_elements != storage.n_elements:
            _refuse(f"storage {key!r} has {n_elements} numbers, not {storage.n_elements}")
        dtype = np.dtype(storage.dtype)
        raw = _take(stream, n_elements * dtype.itemsize)
        # Copied because the bytes sit in the file at odd addresses.
        storages[storage] = np.frombuffer(raw, dtype).copy()
    return storages


def _take(stream: io.BytesIO, n_bytes: int) -> bytes:
    raw = stream.read(max(n_bytes, 0))
    if len(raw) != n_bytes:
        _refuse(f"it ends after {len(raw):,} of the {n_bytes:,} bytes of a storage")
    return raw


def _make_array(name: str, tensor: _Tensor, storages: Mapping[_Storage, np.ndarray]) -> np.ndarray:
    storage = storages[tensor.storage]
    offset, size, stride = tensor.offset, tensor.size, tensor.stride
    if not (
        isinstance(size, tuple)
        and isinstance(stride, tuple)
        and len(size) == len(stride)
        and all(type(number) is int and number >= 0 for number in (offset, *size, *stride))
    ):
        _refuse(f"tensor {name!r} has no valid offset, size and strides")
    if 0 in size:
        array = np.empty(size, storage.dtype)
    else:
        # In Python's unbounded integers: NumPy's own check can be led around by an overflow.
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= storage.size:
            _refuse(f"tensor {name!r} reaches number {last} of a storage of {storage.size}")
        itemsize = storage.itemsize
        array = np.ndarray(
            size, storage.dtype, storage, offset * itemsize, [step * itemsize for step in stride]
        )
    array.flags.writeable = False
    return array
