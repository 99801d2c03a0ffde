"""Compile two RASP programs into Transformers of known wiring and store them beside this file as .npz.

The tests read the stored files (`programs.py`) and need nothing of this. To make them again:

    python -m venv tracr-env
    tracr-env/bin/pip install tracr-pypi
    tracr-env/bin/python tests/known/compile_programs.py

tracr (Lindner et al. 2023, arXiv 2301.05062) gives every variable of a program its own directions of the residual
stream. So the wiring can be read off the weights: u -> v is wired if what u may write overlaps what v reads.

- ``reverse``: the sequence backwards, by length and opposite index; 4 layers of one head.
- ``induction``: copy the token after the previous occurrence of this one; 2 layers of one head, causal.
"""

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import numpy as np
from tracr.compiler import compiling, lib
from tracr.rasp import rasp

BOS = "BOS"
EXAMPLES = 64
TRACED = 4  # examples whose last residual stream is stored, as tracr computes it
UNDEFINED = -1  # the program gives no output here


def induction() -> rasp.SOp:
    """Build the program: where was this token the previous one, and what stood there?"""
    previous = lib.shift_by(1, rasp.tokens).named("previous")
    match = rasp.Select(previous, rasp.tokens, rasp.Comparison.EQ).named("match")
    return rasp.Aggregate(match, rasp.tokens).named("copy")


def copied(word: list[str]) -> list[str | None]:
    """Say in plain Python what `induction` is to give, on words in which no letter has two earlier successors."""
    return [next((word[j] for j in range(1, i + 1) if word[j - 1] == letter), None) for i, letter in enumerate(word)]


def main() -> None:
    """Compile both programs and store them with what they ought to give."""
    shuffled = np.random.default_rng(0).permutation
    reversed_words = shuffled(list(product("abcd", repeat=4)))[:EXAMPLES]
    halves = shuffled(list(permutations("abcdef")))[:EXAMPLES]
    repeated = np.concatenate([halves, halves], axis=1)
    programs = {
        "reverse": (lib.make_reverse(rasp.tokens), lambda word: word[::-1], "abcd", 5, False, reversed_words),
        "induction": (induction(), copied, "abcdef", 12, True, repeated),
    }
    for name, (program, truth, letters, length, causal, words) in programs.items():
        compiled = compiling.compile_rasp_to_model(
            program, vocab=set(letters), max_seq_len=length, causal=causal, compiler_bos=BOS
        )
        arrays = weights_of(compiled, program.label) | examples_of(truth, compiled, words.tolist())
        arrays |= wiring_of(arrays)
        path = Path(__file__).with_name(f"{name}.npz")
        np.savez_compressed(path, **arrays)
        size = path.stat().st_size / 1024
        print(f"{path.name}: {size:.0f} KiB, {len(arrays['directions'])} directions")
        for source, target in np.argwhere(arrays["wiring"]):
            print(f"  {arrays['nodes'][source]} -> {arrays['nodes'][target]}")


def weights_of(compiled, label: str) -> dict[str, np.ndarray]:
    """Sort tracr's parameters by layer and head; refuse anything that `programs.py` would not compute."""
    config, directions, answers = compiled.model_config, compiled.residual_labels, _letters(compiled.output_encoder)
    parameters = {key: {k: np.asarray(v) for k, v in value.items()} for key, value in compiled.params.items()}
    assert not config.layer_norm
    assert not any(np.any(value["b"]) for value in parameters.values() if "b" in value)

    def stack(part: str) -> np.ndarray:  # [L, in, out]
        layers = range(config.num_layers)
        return np.stack([parameters[f"transformer/layer_{layer}/{part}"]["w"] for layer in layers])

    def by_head(part: str) -> np.ndarray:  # [L, H, D, d_head]
        w = stack(f"attn/{part}")
        return w.reshape(*w.shape[:2], config.num_heads, config.key_size).transpose(0, 2, 1, 3)

    output = stack("attn/linear")
    # The unembedding picks the output variable's own directions, which tracr calls LABEL:VALUE
    unembedding = np.array([[d == f"{label}:{answer}" for answer in answers] for d in directions], dtype=np.float32)
    assert (unembedding.sum(0) == 1).all()
    return {
        "directions": np.array(directions),
        "letters": _letters(compiled.input_encoder),
        "answers": answers,
        "causal": np.array(config.causal),
        "token_embedding": parameters["token_embed"]["embeddings"],  # [letters, D]
        "position_embedding": parameters["pos_embed"]["embeddings"],  # [positions, D]
        "query": by_head("query"),
        "key": by_head("key"),
        "value": by_head("value"),
        "output": output.reshape(len(output), config.num_heads, config.key_size, -1),  # [L, H, d_head, D]
        "mlp_in": stack("mlp/linear_1"),  # [L, D, F]
        "mlp_out": stack("mlp/linear_2"),  # [L, F, D]
        "unembedding": unembedding,  # [D, answers]
    }


def examples_of(truth: Callable, compiled, words: list[list[str]]) -> dict[str, np.ndarray]:
    """Give inputs with BOS, the true outputs, and a few residual streams as tracr itself computes them."""
    answer = compiled.output_encoder.encoding_map
    wanted = [[UNDEFINED] + [UNDEFINED if one is None else answer[one] for one in truth(word)] for word in words]
    tokens = [compiled.input_encoder.encode([BOS, *word]) for word in words]
    streams = [np.asarray(compiled.apply([BOS, *word]).transformer_output[0]) for word in words[:TRACED]]
    return {"inputs": np.array(tokens), "outputs": np.array(wanted), "streams": np.stack(streams)}  # [E, T], ...


def wiring_of(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read the wiring off the weights.

    Returns
    -------
    dict
        ``nodes``, the nodes' names; ``wiring`` bool [N, N], row = source, column = target; ``wiring_qkv`` bool
        [3, N, N], the same by the input through which a head reads.
    """
    query, key, value, output = (arrays[name].astype(np.float64) for name in ("query", "key", "value", "output"))
    n_layers, n_heads = query.shape[:2]
    # (name, place in the order of computation, what it may write [*, D], what it reads [D, *] through its inputs)
    embedding = np.concatenate([arrays["token_embedding"], arrays["position_embedding"]])
    nodes = [("embed", -1, embedding, {})]
    for layer in range(n_layers):
        for head in range(n_heads):
            q, k, v, o = (part[layer, head] for part in (query, key, value, output))
            # A head whose values are not read or whose output is not written reads nothing at all
            alive = float(np.any(v @ o))
            reads = {"q": alive * q @ k.T, "k": alive * k @ q.T, "v": v @ o}
            nodes.append((f"L{layer}H{head}", 2 * layer, v @ o, reads))
        into, out = arrays["mlp_in"][layer], arrays["mlp_out"][layer]
        used = np.any(out, axis=1)  # hidden units that write
        nodes.append((f"L{layer}MLP", 2 * layer + 1, out, {"mlp": into * used}))
    nodes.append(("logits", 2 * n_layers, np.zeros((0, len(embedding.T))), {"logits": arrays["unembedding"]}))

    def wired(inputs: str) -> np.ndarray:
        reads = [[matrix for name, matrix in node[3].items() if name in inputs.split()] for node in nodes]
        return np.array(
            [
                [
                    source[1] < target[1] and any(np.any(source[2] @ r) for r in read)
                    for target, read in zip(nodes, reads, strict=True)
                ]
                for source in nodes
            ]
        )

    return {
        "nodes": np.array([node[0] for node in nodes]),
        "wiring": wired("q k v mlp logits"),
        "wiring_qkv": np.stack([wired(name) for name in "qkv"]),
    }


def _letters(encoder) -> np.ndarray:
    return np.array(sorted(encoder.encoding_map, key=encoder.encoding_map.get))


if __name__ == "__main__":
    main()
