"""Any checkpoint's weights as one safetensors file, without the buffers that are no weights.

Tensors are copied one at a time, from shards or from pickled files, whose tensors are mapped and not read. Nothing in
a file is executed: pickled files are read with ``weights_only=True``. The format is described in the documentation of
safetensors: a length, a JSON header, the data.
"""

import hashlib
import json
import math
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phasegraph.errors import PhasegraphError

CHUNK = 1 << 24

SIZES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
SIZES |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
"""Bytes per number, by the format's names of dtypes."""

TORCH_DTYPES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "int16": "I16", "float16": "F16", "bfloat16": "BF16", "int32": "I32", "float32": "F32", "int64": "I64",
    "float64": "F64",
}  # fmt: skip

MASK = re.compile(r"(.*\.)?(attn|attention)\.bias")
BUFFER = re.compile(r"(.*\.)?((attn|attention)\.masked_bias|rotary(_emb)?\.inv_freq)")


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file."""

    name: str
    """Its name in the state dictionary."""
    dtype: str
    """Its type, as safetensors names it."""
    shape: tuple[int, ...]
    """Its shape."""
    read: Callable[[], Iterable[bytes | memoryview]]
    """Gives its bytes, little-endian, last axis fastest, piece by piece."""

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * SIZES[self.dtype]


def is_buffer(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor is a causal mask or a table of rotary frequencies, which follow from the configuration.

    Masks are told from weights (such as the biases of an attention layer) by their shape, [1, 1, length, length].

    Examples
    --------
    >>> is_buffer("gpt_neox.layers.0.attention.bias", (1, 1, 2048, 2048))
    True
    >>> is_buffer("gpt_neox.layers.0.attention.dense.bias", (128,))
    False
    """
    mask = bool(MASK.fullmatch(name)) and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
    return mask or bool(BUFFER.fullmatch(name))


def tensors_of(path: Path) -> list[Tensor]:
    """List the tensors of a file, a safetensors one by its suffix, else one that torch pickled.

    Raises
    ------
    PhasegraphError
        If the file is damaged or truncated, or holds anything but tensors.
    """
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
        yield from tensor.read()


def _in_safetensors(path: Path) -> list[Tensor]:
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            length = int.from_bytes(handle.read(8), "little")
            if length > size - 8:
                raise ValueError("it ends within its header")
            header = json.loads(handle.read(length))
        header.pop("__metadata__", None)
        found, ends = [], [0]
        for name, entry in header.items():
            start, end = entry["data_offsets"]
            found.append(
                Tensor(name, entry["dtype"], tuple(entry["shape"]), _reader(path, 8 + length + start, end - start))
            )
            if found[-1].bytes != end - start:
                raise ValueError(f"the size of {name} does not fit its shape")
            ends.append(end)
        if 8 + length + max(ends) != size:
            raise ValueError(f"it has {size} bytes and should have {8 + length + max(ends)}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PhasegraphError(f"{path} is not a whole safetensors file ({error})") from error
    return found


def _reader(path: Path, start: int, size: int) -> Callable[[], Iterator[bytes]]:
    def read() -> Iterator[bytes]:
        with path.open("rb") as handle:
            handle.seek(start)
            left = size
            while left > 0:
                piece = handle.read(min(left, CHUNK))
                if not piece:
                    raise PhasegraphError(f"{path} became shorter while it was read; fetch it again")
                left -= len(piece)
                yield piece

    return read


def _in_pickle(path: Path) -> list[Tensor]:
    import torch

    try:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before torch 1.6 cannot be mapped and is read into memory
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        way_out = "it was not loaded, because loading could run code"
        raise PhasegraphError(f"{path} holds more than tensors, or is damaged; {way_out}") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
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

    def read() -> list[memoryview]:
        return [memoryview(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())]

    return Tensor(name, TORCH_DTYPES[dtype], tuple(value.shape), read)
