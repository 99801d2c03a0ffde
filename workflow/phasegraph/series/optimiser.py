"""The model that is trained and one update of it (the only file of this stage that imports torch)."""

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager

import safetensors.torch
import torch
from torch.nn import functional
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from phasegraph.errors import PhasegraphError
from phasegraph.series.batches import batch
from phasegraph.series.recipe import Recipe

ROTARY_BASE = 10000


@contextmanager
def reproducible(recipe: Recipe) -> Iterator[None]:
    """Use the recipe's threads inside the block, and leave the caller's threads and random state as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(recipe.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)


class Learner:
    """A model and its optimiser at one step.

    Parameters
    ----------
    recipe
        What is trained.
    step
        Number of updates made so far.
    state
        What `state` gave at that step; None at step 0.
    """

    def __init__(self, recipe: Recipe, step: int = 0, state: bytes | None = None) -> None:
        self.recipe = recipe
        self.step = step
        torch.manual_seed(recipe.seed)
        self.model = GPTNeoXForCausalLM(_config(recipe)).train()
        decayed = [weight for weight in self.model.parameters() if weight.ndim >= 2]
        other = [weight for weight in self.model.parameters() if weight.ndim < 2]
        self.optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": other, "weight_decay": 0.0}],
            lr=recipe.learning_rate,
            betas=(recipe.beta1, recipe.beta2),
            eps=1e-8,
            fused=True,
        )
        if state is not None:
            saved = torch.load(io.BytesIO(state), weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimiser.load_state_dict(saved["optimiser"])

    def update(self) -> tuple[float, float]:
        """Make one step, and return its learning rate and its loss (nats per token, before the update).

        Raises
        ------
        PhasegraphError
            If the training has diverged.
        """
        step = self.step + 1
        rate = learning_rate(self.recipe, step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        tokens = torch.from_numpy(batch(self.recipe, step))  # [batch, length]
        logits = self.model(input_ids=tokens, use_cache=False).logits  # [batch, length, vocab]
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        if not math.isfinite(loss.item()):
            raise PhasegraphError(f"recipe: the training diverged at step {step}; choose a lower learning_rate")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.step = step
        return rate, loss.item()

    def state(self) -> bytes:
        """Give all that going on from this step needs, beside the recipe."""
        buffer = io.BytesIO()
        torch.save({"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}, buffer)
        return buffer.getvalue()

    def checkpoint(self) -> dict[str, bytes]:
        """Give the files of a Hugging Face model folder: names and contents."""
        weights = {
            # On disk the unembedding keeps the name it had in GPT-NeoX; save_pretrained does the same.
            "embed_out.weight" if name == "lm_head.weight" else name: tensor.contiguous()
            for name, tensor in self.model.state_dict().items()
        }
        return {
            "config.json": _config_json(self.recipe),
            "model.safetensors": safetensors.torch.save(weights, metadata={"format": "pt"}),
        }


def learning_rate(recipe: Recipe, step: int) -> float:
    """Learning rate of an update (the first is step 1): linear warm-up, then a cosine to its final share."""
    if step < recipe.warmup:
        return recipe.learning_rate * step / recipe.warmup
    progress = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    share = recipe.final_share + (1 - recipe.final_share) * (1 + math.cos(math.pi * progress)) / 2
    return recipe.learning_rate * share


def _config(recipe: Recipe) -> GPTNeoXConfig:
    return GPTNeoXConfig(
        vocab_size=recipe.vocab,
        hidden_size=recipe.d_model,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.d_mlp,
        max_position_embeddings=recipe.positions,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": ROTARY_BASE,
            "partial_rotary_factor": recipe.rotary,
        },
        hidden_act="gelu",
        initializer_range=0.02,
        attention_bias=True,
        use_parallel_residual=True,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        architectures=["GPTNeoXForCausalLM"],
        dtype="float32",
    )


def _config_json(recipe: Recipe) -> bytes:
    values = json.loads(_config(recipe).to_json_string())
    # Readers older than transformers 5 look for these two instead of rope_parameters.
    values |= {"rotary_pct": recipe.rotary, "rotary_emb_base": ROTARY_BASE}
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
