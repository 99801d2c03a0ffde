"""An induction circuit written by hand into GPT-NeoX weights, so that its wiring is known.

Two layers of four heads, width 128, no MLPs (all zero). Each kind of information has its own coordinates of the
residual stream; tokens are stored as one-hot vectors less their mean, so that layer norm's centring changes nothing:

    CURRENT   which token stands here                 written by the embedding
    PREVIOUS  which token stands one place before     written by L0H0
    NEXT      which token comes next                  written by L1H1, read by the unembedding
    ANCHOR    a large constant                        written by the bias that the heads of layer 0 share

Layer norm couples all of them, since whatever a node writes changes the scale for every reader. The anchor holds that
scale nearly constant; and as it belongs to no node, no ablation takes it away.
"""

import math
from types import SimpleNamespace

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

VOCABULARY = 24
WIDTH, HEADS, D_HEAD, ROTARY = 128, 4, 32, 8

CURRENT, PREVIOUS, NEXT = slice(0, 24), slice(32, 56), slice(64, 88)
ANCHOR = slice(96, 128)
SIZE = 3.0  # what multiplies a written one-hot vector; large beside the noise
ANCHOR_SIZE = 10.0  # norm of the anchor, relative to that

PREVIOUS_GAP = 60.0  # amplitude of L0H0's score at each rotary frequency
MATCH_GAP = 20.0  # L1H1's score of a matching key less that of any other
LOGIT_GAP = 6.0  # logit of the predicted token less that of any other

TRUE_EDGES = (
    ("embed", "L0H0", "v"),
    ("L0H0", "L1H1", "k"),
    ("embed", "L1H1", "q"),
    ("embed", "L1H1", "v"),
    ("L1H1", "logits", None),
)
"""Source, target, and by which input a head reads it."""


def induction_circuit(noise: float = 0.0, seed: int = 0) -> GPTNeoXForCausalLM:
    """Write the circuit.

    Its repeated-half loss on segments without repeated tokens is ln(1 + 23 exp(-6)) = 0.0555 nats, up to the scale of
    the last layer norm.

    Parameters
    ----------
    noise
        Standard deviation of normal noise added to every parameter; without it all nodes but L0H0 and L1H1 are dead.
    seed
        Seed of the noise.

    Returns
    -------
    GPTNeoXForCausalLM
        Untied embeddings, float32, in evaluation mode.
    """
    model = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            rotary_pct=ROTARY / D_HEAD,
            max_position_embeddings=64,
            use_parallel_residual=True,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(float("norm" in name and name.endswith("weight")))
        _write(model)
        if noise:
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                parameter.add_(noise * torch.randn(parameter.shape, generator=generator))
    return model


def _write(model: GPTNeoXForCausalLM) -> None:
    """Write the two heads, the embedding, the anchor and the unembedding into a model of zeros."""
    centred = torch.eye(VOCABULARY) - 1 / VOCABULARY  # row = token
    first, second = (layer.attention for layer in model.gpt_neox.layers)
    model.gpt_neox.embed_in.weight[:, CURRENT] = SIZE * centred
    signs = torch.ones(ANCHOR.stop - ANCHOR.start)
    signs[::2] = -1  # sums to zero, so that centring changes nothing
    first.dense.bias[ANCHOR] = SIZE * ANCHOR_SIZE * signs / signs.norm()

    # What layer norm makes of a one-hot vector of length SIZE: in layer 0 where it stands alone, in layer 1 and at the
    # end, where the anchor and one or two more stand beside it
    contents = ((0, 1), (ANCHOR_SIZE**2, 2), (ANCHOR_SIZE**2, 3))
    scale = [math.sqrt(WIDTH / (anchor + tokens * (1 - 1 / VOCABULARY))) for anchor, tokens in contents]

    query, key, value = _rows(first, head=0)
    amplitude = math.sqrt(PREVIOUS_GAP * math.sqrt(D_HEAD))
    angle = 10000.0 ** (-2 * torch.arange(ROTARY // 2) / ROTARY)  # per position, the rotary frequencies
    # Each pair of coordinates scores amplitude^2 cos(angle (i - j - 1)) between query position i and key position j
    query.bias[: ROTARY // 2] = amplitude
    key.bias[: ROTARY // 2], key.bias[ROTARY // 2 : ROTARY] = amplitude * angle.cos(), amplitude * angle.sin()
    value.weight[:VOCABULARY, CURRENT] = SIZE / scale[0] * torch.eye(VOCABULARY)
    first.dense.weight[PREVIOUS, :VOCABULARY] = torch.eye(VOCABULARY)

    query, key, value = _rows(second, head=1)
    match = math.sqrt(MATCH_GAP * math.sqrt(D_HEAD)) / scale[1]
    query.weight[ROTARY:, CURRENT] = match * torch.eye(VOCABULARY)
    key.weight[ROTARY:, PREVIOUS] = match * torch.eye(VOCABULARY)
    value.weight[:VOCABULARY, CURRENT] = SIZE / scale[1] * torch.eye(VOCABULARY)
    second.dense.weight[NEXT, D_HEAD : D_HEAD + VOCABULARY] = torch.eye(VOCABULARY)

    model.get_output_embeddings().weight[:, NEXT] = LOGIT_GAP / scale[2] * torch.eye(VOCABULARY)


def _rows(attention: torch.nn.Module, head: int) -> list[SimpleNamespace]:
    """Give views of the rows of the fused map that make one head's query, key and value."""
    fused = attention.query_key_value
    weight, bias = fused.weight.view(HEADS, 3, D_HEAD, WIDTH), fused.bias.view(HEADS, 3, D_HEAD)
    return [SimpleNamespace(weight=weight[head, part], bias=bias[head, part]) for part in range(3)]
