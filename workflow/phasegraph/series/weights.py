"""The weights of a checkpoint's folder, whatever the format of its files.

Read are ``model.safetensors``, its shards under ``model.safetensors.index.json``, ``pytorch_model.bin`` and its shards
under ``pytorch_model.bin.index.json``; the first of these that is there counts, as in transformers. Of what they hold,
a *weight* is a floating-point tensor, except

- buffers that old versions of transformers wrote beside the weights: rotary ``inv_freq``, ``masked_bias`` and causal
  masks stored as numbers (a ``bias`` of shape [1, 1, n, n]); boolean and integer masks are no floating-point tensors;
- the unembedding of a model whose config.json says ``tie_word_embeddings``: one format stores it twice, another once.
  Where config.json is silent it is left out if it equals the embedding.

Tensors come in the order of their names, one in memory at a time. torch is imported only for what numpy cannot read.
"""

import hashlib
import json
import math
import pickle
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from phasegraph.errors import PhasegraphError

LAYOUTS = tuple(name + part for name in ("model.safetensors", "pytorch_model.bin") for part in ("", ".index.json"))
"""Files by which a checkpoint is recognised, the preferred first."""

INPUT_EMBEDDINGS = ("embed_in.weight", "wte.weight", "embed_tokens.weight", "word_embeddings.weight")
OUTPUT_EMBEDDINGS = ("lm_head.weight", "embed_out.weight")

FLOATS = {
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"},
    **{"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"},
}
"""Floating-point formats: their names in safetensors and in torch."""

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


def layout(folder: str | Path) -> Path:
    """Find the file by which a folder's weights are read: a file of weights, or the index of their shards.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    for name in LAYOUTS:
        if (path := Path(folder) / name).is_file():
            return path
    raise FileNotFoundError(f"{folder} holds no weights (none of {', '.join(LAYOUTS)})")


def configuration(folder: str | Path) -> dict | None:
    """Read a checkpoint's config.json; None if there is none.

    Raises
    ------
    PhasegraphError
        If it cannot be read.
    """
    path = Path(folder) / "config.json"
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
    with _opened(folder) as file:
        for name in file.names:
            yield name, file.read(name).values


def content_digest(folder: str | Path) -> str:
    """SHA-256 over name, shape, number format and bytes of every weight, as 64 hexadecimal digits.

    Equal for the same weights in any format, whole or in shards. Raises what `tensors` raises.
    """
    digest = hashlib.sha256()
    with _opened(folder) as file:
        for name in file.names:
            _update(digest, file.read(name))
    return digest.hexdigest()


def describe(folder: str | Path) -> Description:
    """Read a checkpoint once for all that is asked of it alone. Raises what `tensors` raises."""
    digest, dtypes, shapes, nonfinite, sample = hashlib.sha256(), set(), {}, {}, {}
    with _opened(folder) as file:
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
    total = 0.0
    with _opened(before) as old, _opened(after) as new, np.errstate(invalid="ignore", over="ignore"):
        if old.names != new.names:
            raise PhasegraphError(
                f"{after}: its tensors' names differ from those of {before}; compare one architecture"
            )
        for name in new.names if names is None else sorted(names):
            one, other = old.read(name).values, new.read(name).values
            if one.shape != other.shape:
                raise PhasegraphError(f"{after}: {name} is {other.shape}, but {one.shape} in {before}")
            change = np.subtract(other, one, dtype=np.float64)
            total += float(np.square(change, out=change).sum())
    if not math.isfinite(total):
        raise PhasegraphError(f"{after} or {before} holds weights that are not finite; leave it out")
    return math.sqrt(total)


class _File:
    """The weights' names, sorted, and how to read one; whatever the format."""

    def __init__(self, sources: dict[str, object], tie: bool | None, size: int) -> None:
        self.sources = sources
        self.bytes = size
        self.names = sorted(name for name in sources if not self._is_buffer(name))
        output = next((name for name in self.names if name in OUTPUT_EMBEDDINGS), None)
        inputs = next((name for name in self.names if name.endswith(INPUT_EMBEDDINGS)), None)
        if output and inputs and (tie or (tie is None and self._equal(output, inputs))):
            self.names.remove(output)
        if not self.names:
            raise ValueError("it holds no floating-point tensors")

    def read(self, name: str) -> Weight:
        source = self.sources[name]
        if isinstance(source, safe_open):
            dtype = FLOATS[source.get_slice(name).get_dtype()]
            tensor = source.get_tensor(name)
        else:
            dtype, tensor = str(source.dtype).removeprefix("torch."), source
        if isinstance(tensor, np.ndarray):
            return Weight(name, dtype, tensor, tensor)
        tensor = tensor.detach().contiguous()
        if dtype in ("float64", "float32", "float16"):
            return Weight(name, dtype, tensor.numpy(), tensor.numpy())
        import torch

        integer = {1: torch.uint8, 2: torch.int16}[tensor.element_size()]
        return Weight(name, dtype, tensor.float().numpy(), tensor.view(integer).numpy())

    def _is_buffer(self, name: str) -> bool:
        source, last = self.sources[name], name.rpartition(".")[2]
        if isinstance(source, safe_open):
            piece = source.get_slice(name)
            known, shape = piece.get_dtype() in FLOATS, tuple(piece.get_shape())
        else:
            known, shape = str(source.dtype).removeprefix("torch.") in FLOATS.values(), tuple(source.shape)
        is_mask = last == "bias" and len(shape) == 4 and shape[:2] == (1, 1) and shape[2] == shape[3]
        return not known or is_mask or last in ("inv_freq", "masked_bias")

    def _equal(self, one: str, other: str) -> bool:
        first, second = self.read(one), self.read(other)
        return first.dtype == second.dtype and np.array_equal(first.bits, second.bits)


@contextmanager
def _opened(folder: str | Path) -> Iterator[_File]:
    path = layout(folder)
    tie = (configuration(folder) or {}).get("tie_word_embeddings")
    try:
        with ExitStack() as stack:
            places = _places(path)
            shards = {place: _open(place, stack) for place in sorted(set(places.values()) or {path})}
            if not places:
                places = dict.fromkeys(shards[path].keys(), path)
            sources = {name: _source(shards[place], name) for name, place in places.items()}
            yield _File(sources, tie, sum(place.stat().st_size for place in shards))
    except PhasegraphError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, EOFError, AttributeError,
            pickle.UnpicklingError) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise PhasegraphError(f"{path} cannot be read ({reason}); fetch or write this checkpoint again") from error


def _places(path: Path) -> dict[str, Path]:
    """Give the shard of every tensor, or nothing if the weights are in one file."""
    if path.suffix != ".json":
        return {}
    return {name: path.with_name(shard) for name, shard in json.loads(path.read_text())["weight_map"].items()}


def _open(path: Path, stack: ExitStack) -> object:
    if path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
        raise ValueError(f"{path.name} is a Git LFS pointer, not the file itself")
    if path.suffix == ".safetensors":
        with safe_open(path, framework="numpy") as file:
            known = all(file.get_slice(name).get_dtype() not in ("BF16", "F8_E4M3", "F8_E5M2") for name in file.keys())  # noqa: SIM118
        return stack.enter_context(safe_open(path, framework="numpy" if known else "pt"))
    import torch

    with path.open("rb") as handle:
        is_zip = handle.read(4) == b"PK\x03\x04"  # files of torch before 1.6 cannot be mapped
    return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)


def _source(shard: object, name: str) -> object:
    if isinstance(shard, dict):
        return shard[name]
    shard.get_slice(name)  # raises if it is not there
    return shard


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
