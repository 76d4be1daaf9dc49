"""What a model looks at in a clip: attention followed back, gradients of a class, what tokens have in common.

Each map has a value for every token, (b, n), and is made from the hidden states, which the model gives.
"""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.blocks import Block, Params
from videomae_jax.models.encoder import HiddenStates
from videomae_jax.models.stack import apply_stack


def attention_rollout(
    config: VideoMAEConfig, params: Params, hidden_states: HiddenStates
) -> Float[Array, "b n"]:
    """How much of each token reaches what the model pools, if a block passes on half of a token by its skip
    connection and half by attention, the mean of its heads (Abnar and Zuidema, 2020). The sum is 1.

    What is pooled is the mean of the last tokens, or token 0 where a classifier is trained so.
    """
    batch, tokens, _ = hidden_states[0].shape
    share = jnp.full((batch, tokens), 1 / tokens)
    if not config.use_mean_pooling and config.num_labels:
        share = jnp.zeros((batch, tokens)).at[:, 0].set(1)
    for layer in reversed(range(config.num_hidden_layers)):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["encoder"]["blocks"])
        passed = jnp.einsum("bm,bmn->bn", share, _mean_attention(config, block, hidden_states[layer]))
        share = (share + passed) / 2
    return share


def _mean_attention(config: VideoMAEConfig, params: Params, x: jax.Array) -> Float[Array, "b m n"]:
    """The softmax of a block on tokens, the mean of its heads."""
    _, kept = _block(config).apply({"params": params}, x, mutable=["intermediates"])
    [(q, k)] = kept["intermediates"]["attn"]["queries_and_keys"]

    def add_head(total: jax.Array, of_head: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        q, k = (each.astype(jnp.float32) for each in of_head)
        scores = jnp.einsum("bme,bne->bmn", q, k) * q.shape[-1] ** -0.5
        return total + jax.nn.softmax(scores), None

    heads = (jnp.moveaxis(q, 2, 0), jnp.moveaxis(k, 2, 0))
    zeros = jnp.zeros((x.shape[0], x.shape[1], x.shape[1]))
    return jax.lax.scan(add_head, zeros, heads)[0] / config.num_attention_heads


def class_map(
    config: VideoMAEConfig, params: Params, hidden_states: HiddenStates, label: int | Int[Array, ""]
) -> Float[Array, "b n"]:
    """How strongly each token that enters the middle block bears on a class, for or against: the sizes of the
    products, value by value, of the gradient of the class's logit with what sets the token off from the mean.
    """
    start = config.num_hidden_layers // 2
    tokens = hidden_states[start].astype(jnp.float32)
    gradient = jax.grad(lambda tokens: _logits(config, params, tokens, start)[:, label].sum())(tokens)
    return jnp.abs(gradient * (tokens - tokens.mean(axis=1, keepdims=True))).sum(axis=-1)


def _logits(config: VideoMAEConfig, params: Params, tokens: jax.Array, start: int) -> Float[Array, "b y"]:
    """What a classifier makes of the tokens that enter block `start`."""
    rest = jax.tree.map(lambda leaf: leaf[start:], params["encoder"]["blocks"])
    tokens = apply_stack(_block(config), rest, tokens, remat=False)[0].astype(jnp.float32)
    if config.use_mean_pooling:
        pooled, norm, epsilon = tokens.mean(axis=1), params["fc_norm"], config.fc_norm_eps
    else:
        pooled, norm, epsilon = tokens[:, 0], params["encoder"]["norm"], config.layer_norm_eps
    features = cast(jax.Array, nn.LayerNorm(epsilon=epsilon).apply({"params": norm}, pooled))
    return features @ params["head"]["kernel"] + params["head"]["bias"]


def _block(config: VideoMAEConfig) -> Block:
    return Block(config, config.num_attention_heads, config.intermediate_size)


def token_pca(tokens: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 3"]:
    """The first three principal components of the tokens of a clip, each from 0 to 1 between its 2nd and 98th
    percentile; a component's sign is such that the largest value in size is positive."""
    centred = np.asarray(tokens, np.float64)
    centred -= centred.mean(axis=0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    scores = left[:, :3] * sizes[:3]
    scores *= np.sign(scores[np.abs(scores).argmax(axis=0), np.arange(scores.shape[1])])
    low, high = np.percentile(scores, (2, 98), axis=0)
    return np.clip((scores - low) / np.maximum(high - low, 1e-12), 0, 1)


def randomized(params: Params, key: jax.Array) -> Any:
    """The same parameters with the values of each tensor in another order, drawn from `key`."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    shuffled = [
        jax.random.permutation(k, leaf.reshape(-1)).reshape(leaf.shape)
        for k, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, shuffled)
