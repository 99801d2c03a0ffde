"""How large a model is, from its configuration alone (the standard library only: the Snakefile may read this)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from phasegraph.errors import PhasegraphError
from phasegraph.series.recipe import Recipe

_KEYS = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "num_heads"),
    "width": ("hidden_size", "n_embd"),
    "inner": ("intermediate_size", "ffn_dim", "n_inner"),
    "vocabulary": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions"),
}
"""Names of the same number in the configurations of different families."""


@dataclass(frozen=True)
class Size:
    """The numbers of a Transformer that decide what it costs."""

    layers: int
    """Layers L."""
    heads: int
    """Attention (query) heads H in a layer."""
    width: int
    """Width D of the residual stream."""
    inner: int
    """Hidden units of an MLP."""
    vocabulary: int
    """Rows of the embedding."""
    parameters: int
    """All weights and biases, embeddings included; tied matrices count once."""
    family: str = "gpt_neox"
    """``model_type`` of the configuration."""
    key_heads: int = 0
    """Heads of keys and values, fewer than `heads` where queries share them; 0 for as many."""
    head_width: int = 0
    """Dimensions of a head; 0 for width / heads."""
    gated: bool = False
    """Whether an MLP has a third matrix, its gate."""
    parallel: bool = True
    """Whether attention and MLP of a layer read the same residual stream."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key_heads", self.key_heads or self.heads)
        object.__setattr__(self, "head_width", self.head_width or self.width // self.heads)

    @property
    def qkv_weights(self) -> int:
        """Elements of a layer's matrices for queries, keys and values."""
        return self.width * self.head_width * (self.heads + 2 * self.key_heads)

    @property
    def output_weights(self) -> int:
        """Elements of a layer's matrix from the heads to the residual stream."""
        return self.width * self.head_width * self.heads

    @property
    def mlp_weights(self) -> int:
        """Elements of a layer's MLP matrices."""
        return self.width * self.inner * (3 if self.gated else 2)

    @property
    def block_weights(self) -> int:
        """Elements of all matrices of a layer."""
        return self.qkv_weights + self.output_weights + self.mlp_weights


@dataclass(frozen=True)
class _Family:
    """What the configurations of a family mean and leave unsaid."""

    vectors: Callable[[Size, Mapping], int]
    """Biases and norms of a layer."""
    outside: Callable[[Size, Mapping], int]
    """Parameters outside the layers, besides the embedding and the unembedding of tokens."""
    gated: bool = False
    parallel: bool = False
    tied: bool = False
    """Whether the unembedding is the embedding, unless the configuration says otherwise."""
    four_fold: bool = False
    """Whether an MLP is four times as wide as the model, unless the configuration says otherwise."""


def size_of(config: Mapping) -> Size:
    """Read a model's size off its configuration.

    Parameters
    ----------
    config
        The content of a Hugging Face ``config.json``.

    Returns
    -------
    Size

    Raises
    ------
    PhasegraphError
        If the family is not among those whose parameters are known here, or a key that it needs is missing.
    """
    name = config.get("model_type")
    if name is None:
        raise PhasegraphError("config.json: model_type is missing, so the size of the model cannot be told")
    if name not in _FAMILIES:
        raise PhasegraphError(
            f"config.json: model_type {name!r} has no formula for its size; there is one for {', '.join(_FAMILIES)}"
        )
    family = _FAMILIES[name]
    width = _get(config, "width")
    size = Size(
        layers=_get(config, "layers"),
        heads=_get(config, "heads"),
        width=width,
        inner=_get(config, "inner", 4 * width if family.four_fold else None),
        vocabulary=_get(config, "vocabulary"),
        parameters=0,
        family=name,
        key_heads=(config.get("num_key_value_heads") or 0) if family.gated else 0,
        head_width=(config.get("head_dim") or 0) if family.gated else 0,
        gated=family.gated,
        parallel=bool(config.get("use_parallel_residual", family.parallel)),
    )
    return Size(**vars(size) | {"parameters": _parameters(size, config, family)})


def size_of_recipe(recipe: Recipe) -> Size:
    """Give the size of the model that the embedded training trains, a GPT-NeoX."""
    return Size(recipe.layers, recipe.heads, recipe.d_model, recipe.d_mlp, recipe.vocab, recipe.parameters)


def _parameters(size: Size, config: Mapping, family: _Family) -> int:
    tied = config.get("tie_word_embeddings", family.tied)
    embeddings = size.vocabulary * config.get("word_embed_proj_dim", size.width) * (1 if tied else 2)
    layers = size.layers * (size.block_weights + family.vectors(size, config))
    return embeddings + layers + family.outside(size, config)


def _get(config: Mapping, what: str, default: int | None = None) -> int:
    """Find a number under one of its names; the error names the first."""
    for key in _KEYS[what]:
        if config.get(key) is not None:
            return int(config[key])
    if default is None:
        raise PhasegraphError(f"config.json: {_KEYS[what][0]} is missing, so the size of the model cannot be told")
    return default


def _qkv(size: Size) -> int:
    """Biases of queries, keys and values."""
    return size.head_width * (size.heads + 2 * size.key_heads)


def _neox_vectors(size: Size, config: Mapping) -> int:
    attention = _qkv(size) + size.width if config.get("attention_bias", True) else 0
    return attention + size.inner + 5 * size.width  # MLP biases, two layer norms with a shift


def _gpt2_vectors(size: Size, config: Mapping) -> int:
    return _qkv(size) + size.inner + 6 * size.width


def _gptj_vectors(size: Size, config: Mapping) -> int:
    return size.inner + 3 * size.width  # one layer norm; the attention has no biases


def _neo_vectors(size: Size, config: Mapping) -> int:
    return size.inner + 6 * size.width  # no biases of queries, keys and values


def _opt_vectors(size: Size, config: Mapping) -> int:
    biases = _qkv(size) + size.inner + 2 * size.width if config.get("enable_bias", True) else 0
    return biases + _opt_norms(config) * 4 * size.width


def _opt_norms(config: Mapping) -> int:
    return int(config.get("layer_norm_elementwise_affine", True))


def _opt_outside(size: Size, config: Mapping) -> int:
    positions = (_get(config, "positions") + 2) * size.width
    embedded = config.get("word_embed_proj_dim", size.width)
    projections = 2 * embedded * size.width if embedded != size.width else 0
    last = config.get("do_layer_norm_before", True) and not config.get("_remove_final_layer_norm", False)
    return positions + projections + _opt_norms(config) * 2 * size.width * last


def _attention_biases(size: Size, config: Mapping) -> int:
    return (_qkv(size) + size.width) * bool(config.get("attention_bias", False))


def _llama_vectors(size: Size, config: Mapping) -> int:
    mlp = (2 * size.inner + size.width) * bool(config.get("mlp_bias", False))
    return _attention_biases(size, config) + mlp + 2 * size.width


def _with_positions(size: Size, config: Mapping) -> int:
    return _get(config, "positions") * size.width + 2 * size.width


def _layer_norm(size: Size, config: Mapping) -> int:
    return 2 * size.width


def _rms_norm(size: Size, config: Mapping) -> int:
    return size.width


_FAMILIES = {
    "gpt_neox": _Family(_neox_vectors, _layer_norm, parallel=True),
    "gpt2": _Family(_gpt2_vectors, _with_positions, tied=True, four_fold=True),
    "gptj": _Family(_gptj_vectors, lambda s, c: 2 * s.width + s.vocabulary, parallel=True, four_fold=True),
    "gpt_neo": _Family(_neo_vectors, _with_positions, tied=True, four_fold=True),
    "opt": _Family(_opt_vectors, _opt_outside, tied=True),
    "llama": _Family(_llama_vectors, _rms_norm, gated=True),
    "mistral": _Family(lambda s, c: 2 * s.width, _rms_norm, gated=True),
    "qwen2": _Family(lambda s, c: _qkv(s) + 2 * s.width, _rms_norm, gated=True),
    "qwen3": _Family(lambda s, c: _attention_biases(s, c) + 2 * s.width + 2 * s.head_width, _rms_norm, gated=True),
    "olmo": _Family(_attention_biases, lambda s, c: 0, gated=True),  # its norms have no weights
    "olmo2": _Family(
        lambda s, c: _attention_biases(s, c) + 2 * s.width + s.head_width * (s.heads + s.key_heads),
        _rms_norm,
        gated=True,
    ),
}
"""By ``model_type``; `gated` families may share keys and choose the width of their heads."""
