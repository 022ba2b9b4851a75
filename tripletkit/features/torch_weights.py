"""Read old-style PyTorch state dicts as NumPy arrays, without PyTorch.

Such a file is five pickles in a row (magic number, protocol version, system facts, the state
dict with every tensor's storage left open, the list of storage keys), then the storages' raw
bytes. A pickle is a program that may call anything, so it is run by an unpickler to which only
the few names that a tensor needs exist.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np

from tripletkit.errors import WeightsError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
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
    use up time or memory, so take weights from a source you know. The arrays are read-only, in the
    file's order; tensors that share a storage share memory.
    """
    try:
        data = Path(path).read_bytes()
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
    if [_load(stream), _load(stream)] != [_MAGIC_NUMBER, _PROTOCOL_VERSION]:
        _refuse("the magic number or the protocol version is not PyTorch's")
    if _load(stream)["little_endian"] is not True:
        _refuse("it was not written by a little-endian machine")
    tensors = _load(stream)
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            _refuse(
                f"it maps {type(name).__name__} to {type(tensor).__name__}, not names to tensors"
            )
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    keys = _load(stream)
    if sorted(keys) != sorted(storages):
        _refuse("the storages that it lists are not those that its tensors use")
    values = {storages[key]: _read_storage(stream, storages[key]) for key in keys}
    return {
        name: _make_array(name, tensor, values[tensor.storage]) for name, tensor in tensors.items()
    }


class _Storage(NamedTuple):
    """Where a tensor's numbers will be found: what the file's persistent ids say."""

    key: str
    dtype: str
    n_elements: int


class _StateDict(dict[Any, Any]):
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


# The one written in Python keeps its memo in a dict; that in C makes room for whatever number it
# meets, which with one flipped bit is tens of gigabytes.
class _TensorUnpickler(pickle._Unpickler):  # type: ignore[name-defined,misc]
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
    return _TensorUnpickler(stream).load()


def _read_storage(stream: io.BytesIO, storage: _Storage) -> np.ndarray:
    n_elements = int.from_bytes(stream.read(8), "little", signed=True)
    if n_elements != storage.n_elements:
        _refuse(f"storage {storage.key!r} has {n_elements} numbers, not {storage.n_elements}")
    dtype = np.dtype(storage.dtype)
    raw = stream.read(n_elements * dtype.itemsize)
    # Copied because the bytes sit in the file at odd addresses.
    return np.frombuffer(raw, dtype, n_elements).copy()


def _make_array(name: str, tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    offset, size, stride = tensor.offset, tensor.size, tensor.stride
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or not all(type(n) is int and n >= 0 for n in numbers):
        _refuse(f"tensor {name!r} has no valid offset, size and strides")
    # In Python's unbounded integers: NumPy's own check can be led around by an overflow.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        array = np.empty(size, storage.dtype)
    elif last >= storage.size:
        _refuse(f"tensor {name!r} reaches number {last} of a storage of {storage.size}")
    else:
        itemsize = storage.itemsize
        array = np.ndarray(
            size, storage.dtype, storage, offset * itemsize, [step * itemsize for step in stride]
        )
    array.flags.writeable = False
    return array
