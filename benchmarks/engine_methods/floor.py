"""The matrix products that the engine cannot do without, alone."""

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Operand = tuple[torch.Size, tuple[int, ...]]
"""Shape and strides."""
Product = tuple[bool, Operand, Operand]
"""Whether batched, left and right operand."""

aten = torch.ops.aten
OPERANDS = {aten.mm.default: 0, aten.bmm.default: 0, aten.addmm.default: 1, aten.baddbmm.default: 1}
"""Where each operation's left operand stands; before it stands what is added."""


class _Recorder(TorchDispatchMode):
    """Notes every matrix product on the way to its execution."""

    def __init__(self):
        super().__init__()
        self.products: list[Product] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in OPERANDS:
            left, right = args[OPERANDS[func] : OPERANDS[func] + 2]
            self.products.append((left.ndim == 3, _operand(left), _operand(right)))
        else:
            with self:  # in inference mode `linear` arrives whole
                result = func.decompose(*args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return func(*args, **(kwargs or {}))


def record(run: Callable[[], object]) -> list[Product]:
    """List the matrix products of a run, in order."""
    with _Recorder() as recorder:
        run()
    return recorder.products


def flops_of(products: list[Product]) -> int:
    """Count two operations per multiplication."""
    return sum(2 * left[0].numel() * right[0][-1] for _, left, right in products)


def replay(products: list[Product]) -> Callable[[], None]:
    """Make a function that executes the same products, same shapes and strides, into outputs that exist already."""
    operands: dict[Operand, Tensor] = {}
    outputs: dict[Product, Tensor] = {}
    for batched, left, right in products:
        for operand in (left, right):
            if operand not in operands:
                operands[operand] = _random(*operand)
        outputs.setdefault((batched, left, right), torch.empty(*left[0][:-1], right[0][-1], dtype=operands[left].dtype))
    calls = [
        (torch.bmm if batched else torch.mm, operands[left], operands[right], outputs[batched, left, right])
        for batched, left, right in products
    ]

    @torch.inference_mode()
    def execute() -> None:
        for product, left, right, output in calls:
            product(left, right, out=output)

    return execute


class Square:
    """Measures the speed of a large square product, at two sizes."""

    def __init__(self):
        self.operands = {size: _random(torch.Size((size, size)), (size, 1)) for size in (1024, 2048)}
        self.speeds: dict[int, list[float]] = {size: [] for size in self.operands}

    def run(self) -> None:
        """Measure once more."""
        for size, operand in self.operands.items():
            number = 8 if size == 1024 else 1
            start = time.process_time()
            for _ in range(number):
                operand @ operand
            self.speeds[size].append(number * 2 * size**3 / (time.process_time() - start))

    def speed(self) -> float:
        """FLOP/s, median, of the faster size."""
        return max(median(speeds) for speeds in self.speeds.values())


def _operand(tensor: Tensor) -> Operand:
    return tensor.shape, tensor.stride()


def _random(shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    extent = 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    return torch.randn(extent, generator=torch.Generator().manual_seed(0)).as_strided(shape, stride)
