"""The tensors of any file of weights, which of them are buffers, and how to write the rest as one safetensors file.

Files are mapped and not read, so that only what is used is in memory. Nothing in a file is executed: pickled files are
loaded with ``weights_only=True``. The format is described in the documentation of safetensors: a length, a JSON
header, the data. torch is imported for pickled files alone.
"""

import errno
import hashlib
import json
import math
import mmap
import pickle
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phasegraph.errors import PhasegraphError

SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
SIZES |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
"""Bytes per number, by the format's names of dtypes."""

TORCH_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int16": "I16", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "float32": "F32", "int64": "I64",
    "float64": "F64",
}  # fmt: skip

POINTER = b"version https://git-lfs"

DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)
"""What torch raises for files that are cut off or overwritten, beside UnpicklingError."""

BUFFERS = ("masked_bias", "inv_freq")
"""Last parts of the names of buffers that old versions of transformers wrote beside the weights."""


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file."""

    name: str
    """Its name in the state dictionary."""
    dtype: str
    """Its type, as safetensors names it."""
    shape: tuple[int, ...]
    """Its shape."""
    read: Callable[[], memoryview]
    """Gives its bytes, little-endian, last axis fastest."""

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * SIZES[self.dtype]


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a buffer, which follows from the configuration: a causal mask, its value, rotary frequencies.

    Masks, booleans or numbers, are called ``bias`` as some weights are, and told from these by their shape, [1, 1,
    length, length].

    Examples
    --------
    >>> is_buffer("gpt_neox.layers.0.attention.bias", (1, 1, 2048, 2048))
    True
    >>> is_buffer("gpt_neox.layers.0.attention.dense.bias", (128,))
    False
    """
    last = name.rpartition(".")[2]
    is_mask = last == "bias" and len(shape) == 4 and tuple(shape[:2]) == (1, 1) and shape[2] == shape[3]
    return is_mask or last in BUFFERS


def tensors_of(path: Path) -> list[Tensor]:
    """List the tensors of a file, a safetensors one by its suffix, else one that torch pickled.

    Raises
    ------
    PhasegraphError
        If the file is damaged or truncated, or holds anything but tensors.
    OSError
        If it cannot be opened.
    """
    with path.open("rb") as handle:
        if handle.read(len(POINTER)) == POINTER:
            raise PhasegraphError(f"{path} is a Git LFS pointer, not the file itself")
    return _in_safetensors(path) if path.suffix == ".safetensors" else _in_pickle(path)


def write_safetensors(tensors: Iterable[Tensor], out: Path) -> str:
    """Write tensors into one file, widest dtype first and then by name (data must be aligned to its dtype).

    Parameters
    ----------
    tensors
        What to write; names must differ.
    out
        The file, written in place: give a temporary name.

    Returns
    -------
    str
        SHA-256 of the file.
    """
    ordered = sorted(tensors, key=lambda tensor: (-SIZES[tensor.dtype], tensor.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in ordered:
        offsets = [start, start + tensor.bytes]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        start = offsets[1]
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with out.open("wb") as handle:
        for piece in _chain([len(text).to_bytes(8, "little"), text], ordered):
            digest.update(piece)
            handle.write(piece)
    return digest.hexdigest()


def _chain(head: list[bytes], tensors: Iterable[Tensor]) -> Iterator[bytes | memoryview]:
    yield from head
    for tensor in tensors:
        yield tensor.read()


def _in_safetensors(path: Path) -> list[Tensor]:
    try:
        with path.open("rb") as handle:
            size, length = path.stat().st_size, int.from_bytes(handle.read(8), "little")
            if length > size - 8:
                raise ValueError("it ends within its header")
            header = json.loads(handle.read(length))
            data = memoryview(mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ))[8 + length :]
        header.pop("__metadata__", None)
        found, ends = [], [0]
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            found.append(Tensor(name, entry["dtype"], tuple(entry["shape"]), _giving(data[start:end])))
            if found[-1].bytes != end - start:
                raise ValueError(f"the size of {name} does not fit its shape")
            ends.append(end)
        if max(ends) != len(data):
            raise ValueError(f"it has {size} bytes and should have {8 + length + max(ends)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PhasegraphError(f"{path} is not a whole safetensors file ({error})") from error
    return found


def _giving(data: memoryview) -> Callable[[], memoryview]:
    return lambda: data


def _in_pickle(path: Path) -> list[Tensor]:
    import torch

    try:
        with path.open("rb") as handle:
            is_zip = handle.read(4) == b"PK\x03\x04"  # files of torch before 1.6 cannot be mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        way_out = "it was not loaded, because loading could run code"
        raise PhasegraphError(f"{path} holds more than tensors, or is damaged; {way_out}") from error
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # torch's word for a directory cut off
            raise
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise PhasegraphError(f"{path} is not a whole file of torch ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise PhasegraphError(f"{path} is not a dictionary of tensors; only plain weights can be read")
    return [_of_torch(path, name, value) for name, value in state.items()]


def _of_torch(path: Path, name: str, value: "object") -> Tensor:
    import torch

    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in TORCH_DTYPES:
        raise PhasegraphError(f"{path}: {name} has the type {dtype}, which safetensors does not know")

    def read() -> memoryview:
        return memoryview(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())

    return Tensor(name, TORCH_DTYPES[dtype], tuple(value.shape), read)
