"""The probes' modules against plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf

from videomae_jax.models.probes import AttentiveProbe, LinearProbe

RNG = np.random.default_rng(0)


def layer_norm(x, weights):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * weights["scale"] + weights["bias"]


def dense(x, weights):
    return x @ weights["kernel"] + weights.get("bias", 0)


def test_attentive_probe_is_the_numpy_one():
    heads, width = 3, 12
    probe = AttentiveProbe(5, heads)
    tokens = RNG.standard_normal((4, 7, width))
    params = jax.jit(probe.init)(jax.random.key(0), jnp.zeros((1, 7, width)))["params"]
    # Weights that are large and nowhere at their plain start.
    params = jax.tree.map(lambda leaf: RNG.standard_normal(leaf.shape) * 0.5, params)
    found = jax.jit(probe.apply)({"params": params}, jnp.asarray(tokens, jnp.float32))

    keys = layer_norm(tokens, params["norm1"])
    mixed = np.zeros((4, width))
    for head in range(heads):
        of_head = slice(head * 4, head * 4 + 4)
        q, k, v = (
            dense(x, params[name])[..., of_head]
            for name, x in (("q", params["query"]), ("k", keys), ("v", keys))
        )
        for clip in range(4):
            scores = k[clip] @ q[0, 0] / 2
            weights = np.exp(scores - scores.max())
            mixed[clip, of_head] = (weights / weights.sum()) @ v[clip]
    x = params["query"][0] + dense(mixed, params["proj"])
    hidden = dense(layer_norm(x, params["norm2"]), params["mlp"]["fc1"])
    x = x + dense(hidden * (1 + erf(hidden / np.sqrt(2))) / 2, params["mlp"]["fc2"])
    wanted = dense(layer_norm(x, params["norm3"]), params["head"])
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)


def test_linear_probe_normalises_by_the_batch_in_training_and_by_the_running_mean_after():
    probe = LinearProbe(2)
    features = RNG.standard_normal((6, 3)).astype(np.float32) * [1, 5, 0.1] + [3, 0, -2]
    features = features.astype(np.float32)
    variables = probe.init(jax.random.key(0), jnp.asarray(features))
    assert set(variables["params"]) == {"Dense_0"}  # The norm has no weights.
    logits, changed = probe.apply(variables, jnp.asarray(features), train=True, mutable=["batch_stats"])
    mean, variance = features.mean(0), features.var(0)
    weights = variables["params"]["Dense_0"]
    np.testing.assert_allclose(
        logits, dense((features - mean) / np.sqrt(variance + 1e-6), weights), rtol=1e-4, atol=1e-5
    )
    running = changed["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(running["mean"], 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(running["var"], 0.9 + 0.1 * variance, rtol=1e-5)
    variables = {"params": variables["params"], **changed}
    one = probe.apply(variables, jnp.asarray(features[:1]))
    wanted = dense((features - running["mean"]) / np.sqrt(running["var"] + 1e-6), weights)
    np.testing.assert_allclose(one, wanted[:1], rtol=1e-4, atol=1e-5)
