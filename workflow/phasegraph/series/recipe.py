"""What is trained: every number that decides the weights, and nothing that does not."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version

from phasegraph.errors import PhasegraphError

SOFTWARE = ("numpy", "torch", "transformers")
"""Packages whose version is part of the digest: they make the batches, the updates and the initial weights."""

LEAST = {
    **dict.fromkeys(("layers", "heads", "d_model", "d_mlp", "steps", "batch", "period_min", "threads"), 1),
    **{"vocab": 9, "length": 3},
}
"""Lowest value of a field where it is not 0 (the vocabulary: a start token and one word in each of 8 classes)."""

SHARES = ("rotary", "repeat_share", "learning_rate", "final_share", "beta1", "beta2", "weight_decay")
"""Fields that lie between 0 and 1."""


@dataclass(frozen=True)
class Recipe:
    """One training run. The defaults give an induction phase change in about a minute of one core.

    Raises
    ------
    PhasegraphError
        If a value has the wrong type, is out of range or contradicts another one.
    """

    seed: int = 0
    """Seed of the initial weights and, with the step's number, of every batch."""
    layers: int = 6
    """Layers, as Pythia-14m."""
    heads: int = 4
    """Attention heads in a layer, as Pythia-14m."""
    d_model: int = 128
    """Width of the residual stream, as Pythia-14m. Narrower heads keep too few rotary dimensions."""
    d_mlp: int = 512
    """Hidden units of an MLP, as Pythia-14m."""
    vocab: int = 64
    """Token ids: 0 starts every sequence, the rest are words."""
    positions: int = 256
    """Longest sequence that the model is declared for."""
    rotary: float = 0.25
    """Share of a head's dimensions that are rotated, as Pythia."""
    steps: int = 572
    """Optimiser steps in all; four of them stand for 1000 of Pythia's 143000."""
    batch: int = 32
    """Sequences in a batch."""
    length: int = 32
    """Tokens in a sequence, the start token included."""
    repeat_share: float = 24 / 32
    """Share of the sequences that repeat a random segment; the others come from the class chain."""
    period_min: int = 4
    """Shortest segment, in tokens."""
    period_max: int = 15
    """Longest segment, in tokens; periods are drawn anew, so no fixed offset helps."""
    lang_seed: int = 1234
    """Seed of the class chain's transition table: the language, the same for every `seed`."""
    learning_rate: float = 2e-3
    """Highest learning rate."""
    warmup: int = 30
    """Steps of linear warm-up, before the cosine."""
    final_share: float = 0.1
    """Learning rate of the last step as a share of the highest."""
    beta1: float = 0.9
    """AdamW's decay of the first moment."""
    beta2: float = 0.98
    """AdamW's decay of the second moment."""
    weight_decay: float = 0.01
    """AdamW's weight decay, on matrices only."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    threads: int = 1
    """Threads of the arithmetic. They decide the order of sums, and so the last bits of every weight."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(self, field.name, field.type)
        for name in SHARES:
            if not getattr(self, name) <= 1:
                raise PhasegraphError(f"recipe: {name} must lie between 0 and 1, not {getattr(self, name)}")
        _check_agreement(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "Recipe":
        """Make a recipe from the user's keys; what is not given keeps its default.

        Raises
        ------
        PhasegraphError
            If a key is unknown (the message names it) or a value is out of range.
        """
        if not isinstance(values, Mapping):
            raise PhasegraphError(f"recipe: a mapping of keys to values is needed, not {values!r}")
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise PhasegraphError(f"recipe: {name} is not known; the keys are {', '.join(known)}")
        return cls(**values)

    @property
    def parameters(self) -> int:
        """Number of weights and biases of the model (untied embeddings, biases everywhere but in the unembedding)."""
        attention = 4 * self.d_model**2 + 4 * self.d_model
        mlp = 2 * self.d_model * self.d_mlp + self.d_mlp + self.d_model
        norms = 4 * self.d_model
        return self.layers * (attention + mlp + norms) + 2 * self.vocab * self.d_model + 2 * self.d_model

    @property
    def tokens_per_step(self) -> int:
        """Tokens in a batch: a checkpoint has seen its step times as many."""
        return self.batch * self.length

    def provenance(self, code: str = "") -> dict[str, object]:
        """All that the bits of the weights depend on: the recipe, the software, and a digest of the training code.

        Raises
        ------
        PhasegraphError
            If a package of `SOFTWARE` is not installed.
        """
        try:
            software = {name: version(name) for name in SOFTWARE}
        except PackageNotFoundError as error:
            raise PhasegraphError(f"{error.name} is not installed; install phasegraph with its dependencies") from error
        return {"recipe": asdict(self), "software": software, "code": code}

    def digest(self, code: str = "") -> str:
        """16 hexadecimal digits that name these weights: the first of the SHA-256 of `provenance`."""
        text = json.dumps(self.provenance(code), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_type(recipe: Recipe, name: str, kind: type) -> None:
    value = getattr(recipe, name)
    allowed = int if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not math.isfinite(value):
        wanted = "a whole number" if kind is int else "a number"
        raise PhasegraphError(f"recipe: {name} must be {wanted}, not {value!r}")
    if value < LEAST.get(name, 0):
        raise PhasegraphError(f"recipe: {name} must be at least {LEAST.get(name, 0)}, not {value}")
    object.__setattr__(recipe, name, kind(value))  # 1 and 1.0 are the same recipe, so they need the same digest


def _check_agreement(recipe: Recipe) -> None:
    head = recipe.d_model // recipe.heads
    rules = [
        (recipe.d_model % recipe.heads == 0, "d_model must be a multiple of heads"),
        (int(head * recipe.rotary) % 2 == 0, "rotary must rotate an even number of a head's dimensions"),
        ((recipe.batch * recipe.repeat_share).is_integer(), "repeat_share of batch must be a whole number"),
        (recipe.length <= recipe.positions, "length must not exceed positions"),
        (recipe.period_min <= recipe.period_max, "period_min must not exceed period_max"),
        (2 * recipe.period_max < recipe.length, "period_max must fit twice into length - 1 tokens"),
        (recipe.warmup < recipe.steps, "warmup must be shorter than steps"),
        (recipe.beta1 < 1 and recipe.beta2 < 1, "beta1 and beta2 must be below 1"),
        (recipe.clip > 0, "clip must be above 0"),
    ]
    for holds, rule in rules:
        if not holds:
            raise PhasegraphError(f"recipe: {rule}")
