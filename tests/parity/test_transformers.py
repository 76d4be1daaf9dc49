"""All three models against transformers: its folders read here, ours read there, and the numbers between.

Widths and heads of small and base are the published ones, with fewer layers; `wide_heads` stands for large
and huge, with the head dimension 80. Clips are 32 x 32, which no weight knows of. FULL=1 runs full depths.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import videomae_jax
from videomae_jax.checkpoints.names import original_names, tree_from_original
from videomae_jax.checkpoints.trees import flatten

torch = pytest.importorskip("torch", reason="torch is not installed (the parity group of pyproject.toml)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (the parity group)")

torch.set_num_threads(1)  # tests run in several processes
FULL = bool(os.environ.get("FULL"))


def sizes(width, layers, heads, decoder_width, decoder_layers, decoder_heads):
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "decoder_hidden_size": decoder_width,
        "decoder_num_hidden_layers": decoder_layers,
        "decoder_num_attention_heads": decoder_heads,
        "decoder_intermediate_size": 4 * decoder_width,
    }


SIZES = {
    "small": sizes(384, 12 if FULL else 3, 6, 192, 4 if FULL else 2, 3),
    "base": sizes(768, 12 if FULL else 2, 12, 384, 4 if FULL else 2, 6),
    "wide_heads": sizes(320, 3, 4, 160, 3, 2),
}
# size, mean pooling, bias on q and v, frames
CASES = [("small", True, True, 16), ("base", False, True, 8), ("wide_heads", True, False, 16),
         ("wide_heads", False, True, 8)]  # fmt: skip
MODELS = ["VideoMAEForPreTraining", "VideoMAEForVideoClassification", "VideoMAEModel"]


def make_theirs(name, case):
    """A transformers model of which no weight is 0 or 1, so that a forgotten one shows."""
    size, mean_pooling, bias, frames = case
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(
        image_size=32, num_frames=frames, use_mean_pooling=mean_pooling, qv_bias=bias, num_labels=7,
        **SIZES[size],
    )  # fmt: skip
    theirs = getattr(transformers, name)(config).eval()
    for parameter in theirs.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    return theirs


def make_inputs(name, frames):
    rng = np.random.default_rng(0)
    clip = rng.normal(size=(2, frames, 3, 32, 32)).astype(np.float32)
    tokens = frames // 2 * 4
    mask = np.stack([rng.permutation(tokens) < tokens * 3 // 4 for _ in range(2)])
    return clip, ((mask,) if name == "VideoMAEForPreTraining" else ())


def their_numbers(theirs, clip, mask):
    out = theirs(torch.from_numpy(clip), *map(torch.from_numpy, mask), output_hidden_states=True)
    main = out.last_hidden_state if "last_hidden_state" in out else out.logits
    scalar = out.loss if mask else (main**2).mean()
    scalar.backward()
    grads = {name: each.grad.numpy() for name, each in theirs.named_parameters() if each.grad is not None}
    return main.detach().numpy(), scalar.item(), grads, [each.detach().numpy() for each in out.hidden_states]


def our_numbers(model, params, clip, mask):
    def run(params, clip):
        out = model.apply({"params": params}, clip, *mask, output_hidden_states=True)
        main = out.last_hidden_state if hasattr(out, "last_hidden_state") else out.logits
        return (out.loss if mask else jnp.mean(main**2)), (main, out.hidden_states)

    (scalar, (main, hidden)), grads = jax.jit(jax.value_and_grad(run, has_aux=True))(
        params, clip.transpose(0, 1, 3, 4, 2)
    )
    return main, scalar, grads, hidden


def relative_error(ours, theirs):
    return np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_there_and_back(tmp_path, name, case):
    theirs = make_theirs(name, case)
    theirs.save_pretrained(tmp_path / "theirs")
    model, params = getattr(videomae_jax, name).from_pretrained(tmp_path / "theirs")

    clip, mask = make_inputs(name, case[3])
    main, scalar, grads, hidden = their_numbers(theirs, clip, mask)
    our_main, our_scalar, our_grads, our_hidden = our_numbers(model, params, clip, mask)
    assert relative_error(our_main, main) <= 1e-5
    np.testing.assert_allclose(our_scalar, scalar, rtol=1e-5)
    assert len(our_hidden) == len(hidden)
    for ours, each in zip(our_hidden, hidden, strict=True):
        assert relative_error(ours, each) <= 1e-5
    wanted = flatten(tree_from_original(original_names(grads)))
    ours = flatten(our_grads)
    assert ours.keys() == wanted.keys()
    for path, want in wanted.items():
        assert relative_error(ours[path], want) <= 1e-4, path

    model.save_pretrained(tmp_path / "ours", params)
    again, info = getattr(transformers, name).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info.values()), info
    before, after = theirs.state_dict(), again.state_dict()
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    with torch.no_grad():
        out = again.eval()(torch.from_numpy(clip), *map(torch.from_numpy, mask))
    back = (out.last_hidden_state if name == "VideoMAEModel" else out.logits).numpy()
    np.testing.assert_array_equal(back, main)
    assert again.config.use_mean_pooling is case[1]
