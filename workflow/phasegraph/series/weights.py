"""The weights of a checkpoint's folder, whatever the format of its files.

Read is the first of `layout.LAYOUTS` that is there: one file or shards, safetensors or pickled. Of what they hold, a
*weight* is a floating-point tensor, except

- buffers that old versions of transformers wrote beside the weights (`convert.is_buffer`);
- the unembedding of a model whose config.json says ``tie_word_embeddings``: one format stores it twice, another once.
  Where config.json is silent it is left out if it equals the embedding.

Tensors come in the order of their names, one in memory at a time. torch is imported only for pickled files and for
float8.
"""

import hashlib
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from phasegraph.errors import PhasegraphError
from phasegraph.series.convert import TORCH_DTYPES, Tensor, is_buffer, tensors_of
from phasegraph.series.layout import CONFIG, INDEX, layout, shards_of

INPUT_EMBEDDINGS = ("embed_in.weight", "wte.weight", "embed_tokens.weight", "word_embeddings.weight")
OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight")

FLOATS = {code: name for name, code in TORCH_DTYPES.items() if "float" in name}
"""Floating-point formats: their names in safetensors and in torch."""

BITS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}
"""What numpy reads them as: integers of the same width where it lacks the format."""

SAMPLE = 256
"""Numbers of a tensor that stand for it in a sample."""


class Weight(NamedTuple):
    """One tensor of a checkpoint."""

    name: str
    dtype: str
    """Number format on disk, as torch calls it."""
    values: np.ndarray
    """In the format on disk, or float32 where numpy lacks that one (bfloat16, float8)."""
    bits: np.ndarray
    """The bytes on disk: `values`, or integers of the same width where numpy lacks the format."""


@dataclass(frozen=True)
class Description:
    """What one reading of a checkpoint tells."""

    digest: str
    """See `content_digest`."""
    bytes: int
    """Size of the files that hold the weights (and masks, if any)."""
    dtypes: tuple[str, ...]
    """Number formats of the weights, sorted."""
    shapes: dict[str, tuple[int, ...]]
    """Shape of every weight."""
    nonfinite: dict[str, int]
    """Number of infinities and NaNs of the tensors that have any."""
    sample: dict[str, np.ndarray]
    """For every weight the same `SAMPLE` of its numbers (all of a smaller one), float32."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(map(math.prod, self.shapes.values()))


def configuration(folder: str | Path) -> dict | None:
    """Read a checkpoint's config.json; None if there is none.

    Raises
    ------
    PhasegraphError
        If it cannot be read.
    """
    path = Path(folder) / CONFIG
    try:
        return dict(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise PhasegraphError(f"{path} cannot be read ({error}); fetch or write this checkpoint again") from error


def tensors(folder: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Iterate over the weights in the order of their names, one in memory at a time.

    Yields
    ------
    (str, numpy.ndarray)
        Name and values: in the number format on disk, or float32 where numpy lacks that one (bfloat16, float8).

    Raises
    ------
    FileNotFoundError
        If the folder or its weights are not there.
    PhasegraphError
        If they cannot be read. The message names the file and the way out.
    """
    file = _open(folder)
    for name in file.names:
        yield name, file.read(name).values


def content_digest(folder: str | Path) -> str:
    """SHA-256 over name, shape, number format and bytes of every weight, as 64 hexadecimal digits.

    Equal for the same weights in any format, whole or in shards. Raises what `tensors` raises.
    """
    digest, file = hashlib.sha256(), _open(folder)
    for name in file.names:
        _update(digest, file.read(name))
    return digest.hexdigest()


def describe(folder: str | Path) -> Description:
    """Read a checkpoint once for all that is asked of it alone. Raises what `tensors` raises."""
    digest, dtypes, shapes, nonfinite, sample = hashlib.sha256(), set(), {}, {}, {}
    file = _open(folder)
    for name in file.names:
        weight = file.read(name)
        _update(digest, weight)
        dtypes.add(weight.dtype)
        shapes[name] = weight.values.shape
        if count := weight.values.size - np.count_nonzero(np.isfinite(weight.values)):
            nonfinite[name] = int(count)
        sample[name] = _sample(name, weight.values)
    return Description(digest.hexdigest(), file.bytes, tuple(sorted(dtypes)), shapes, nonfinite, sample)


def distance(before: str | Path, after: str | Path, names: Collection[str] | None = None) -> float:
    """Euclidean distance of two checkpoints' weights, summed in float64.

    Parameters
    ----------
    before, after
        Folders of checkpoints, in any formats.
    names
        Tensors to take; None means all.

    Raises
    ------
    FileNotFoundError, PhasegraphError
        As `tensors`; PhasegraphError too if the tensors' names or shapes differ, or a weight is not finite.
    """
    old, new, total = _open(before), _open(after), 0.0
    if old.names != new.names:
        raise PhasegraphError(f"{after}: its tensors' names differ from those of {before}; compare one architecture")
    for name in new.names if names is None else sorted(names):
        one, other = old.read(name).values, new.read(name).values
        if one.shape != other.shape:
            raise PhasegraphError(f"{after}: {name} is {other.shape}, but {one.shape} in {before}")
        with np.errstate(invalid="ignore", over="ignore"):
            change = np.subtract(other, one, dtype=np.float64)
            total += float(np.square(change, out=change).sum())
    if not math.isfinite(total):
        raise PhasegraphError(f"{after} or {before} holds weights that are not finite; leave it out")
    return math.sqrt(total)


class _File:
    """The weights' names, sorted, and how to read one; whatever the format."""

    def __init__(self, tensors: dict[str, Tensor], tie: bool | None, size: int) -> None:
        self.tensors = tensors
        self.bytes = size
        floats = (tensor for tensor in tensors.values() if tensor.dtype in FLOATS)
        self.names = sorted(tensor.name for tensor in floats if not is_buffer(tensor.name, tensor.shape))
        output = next((name for name in self.names if name in OUTPUT_EMBEDDINGS), None)
        inputs = next((name for name in self.names if name.endswith(INPUT_EMBEDDINGS)), None)
        if output and inputs and (tie or (tie is None and self._equal(output, inputs))):
            self.names.remove(output)
        if not self.names:
            raise ValueError("it holds no floating-point tensors")

    def read(self, name: str) -> Weight:
        tensor = self.tensors[name]
        bits = np.ndarray(tensor.shape, BITS[tensor.dtype], tensor.read())
        return Weight(name, FLOATS[tensor.dtype], _values(bits, tensor.dtype), bits)

    def _equal(self, one: str, other: str) -> bool:
        first, second = self.read(one), self.read(other)
        return first.dtype == second.dtype and np.array_equal(first.bits, second.bits)


def _open(folder: str | Path) -> _File:
    path = layout(folder)
    tie = (configuration(folder) or {}).get("tie_word_embeddings")
    way_out = "fetch or write this checkpoint again"
    try:
        if path.name.endswith(INDEX):
            places = shards_of(path)
            shards = {file: {tensor.name: tensor for tensor in tensors_of(file)} for file in sorted({*places.values()})}
            if lost := [name for name, file in places.items() if name not in shards[file]]:
                raise ValueError(f"{lost[0]} is not in {places[lost[0]].name}")
            tensors = {name: shards[file][name] for name, file in places.items()}
        else:
            shards = {path: {tensor.name: tensor for tensor in tensors_of(path)}}
            tensors = shards[path]
        return _File(tensors, tie, sum(file.stat().st_size for file in shards))
    except PhasegraphError as error:
        raise PhasegraphError(f"{error}; {way_out}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PhasegraphError(f"{path} cannot be read ({reason}); {way_out}") from error


def _values(bits: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        return np.asarray(np.left_shift(bits, 16, dtype=np.uint32)).view(np.float32)
    if dtype.startswith("F8"):
        import torch

        return torch.from_numpy(bits.copy()).view(getattr(torch, FLOATS[dtype])).float().numpy()
    return bits


def _update(digest: "hashlib._Hash", weight: Weight) -> None:
    digest.update(f"{weight.name}\0{weight.dtype}\0{weight.values.shape}\0".encode())
    digest.update(np.ascontiguousarray(weight.bits).data)


def _sample(name: str, values: np.ndarray) -> np.ndarray:
    """Take the same places of a tensor in every checkpoint: they depend on its name and size alone."""
    flat = values.reshape(-1)
    if flat.size > SAMPLE:
        seed = int.from_bytes(hashlib.sha256(f"{name}\0{flat.size}".encode()).digest()[:8])
        flat = flat[np.random.default_rng(seed).integers(flat.size, size=SAMPLE)]
    return flat.astype(np.float32)
