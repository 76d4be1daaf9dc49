"""Every way to compute attention against the plain one, forward and gradient, where it can run."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from videomae_jax.errors import InputError
from videomae_jax.hardware import Hardware
from videomae_jax.model_config import VideoMAEConfig
from videomae_jax.models.attention import choice as module
from videomae_jax.models.attention.blockwise import blockwise_attention
from videomae_jax.models.attention.choice import attention, chosen_backend, cudnn_attention, xla_attention
from videomae_jax.models.attention.splash import block_sizes, filled_length, splash_attention
from videomae_jax.models.blocks import Block, arithmetic
from videomae_jax.models.compiled_for import compiling_for, hardware
from videomae_jax.models.stack import apply_stack, apply_stack_to_last, init_stack

CPU, TPU = Hardware("cpu", "cpu"), Hardware("tpu", "TPU v5 lite")
T4, H100 = Hardware("gpu", "Tesla T4", 7.5), Hardware("gpu", "NVIDIA H100 80GB HBM3", 9.0)
A100 = Hardware("gpu", "NVIDIA A100-SXM4-80GB", 8.0)
# Of AMD, whose architectures have names in place of numbers.
MI300 = Hardware("gpu", "AMD Instinct MI300X")
# queries, keys, dimension of a head: the encoder's, the decoder's last layer, a length that no block divides.
SHAPES = [(160, 160, 64), (1408, 1568, 64), (1411, 1009, 80)]
TOLERANCE = {"float32": 3e-6, "bfloat16": 2e-2, "float16": 3e-3}


def draw(queries, keys, width, dtype, heads=2):
    rng = np.random.default_rng(0)
    shapes = [(1, length, heads, width) for length in (queries, keys, keys, queries)]
    # Scores of some tens, so that a softmax without its maximum would overflow or lose all others.
    scales = (6, 3, 1, 1)
    return [
        jnp.asarray(scale * rng.standard_normal(shape), dtype)
        for scale, shape in zip(scales, shapes, strict=True)
    ]


def numbers(attend, q, k, v, grad):
    """The result and the gradients of q, k and v."""
    out, back = jax.vjp(attend, q, k, v)
    return [out, *back(grad)]


def exact(arrays):
    return jax.jit(partial(numbers, xla_attention))(*(each.astype(jnp.float32) for each in arrays))


def assert_close(ours, exact, tolerance):
    for one, other in zip(ours, exact, strict=True):
        assert one.shape == other.shape
        one = np.asarray(one, np.float32)
        assert np.linalg.norm(one - other) <= tolerance * np.linalg.norm(other)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("attend", [xla_attention, blockwise_attention], ids=["xla", "blockwise"])
def test_equal_to_float32(attend, shape, dtype):
    arrays = draw(*shape, dtype)
    ours = jax.jit(partial(numbers, attend))(*arrays)
    assert all(each.dtype == dtype for each in ours)
    assert_close(ours, exact(arrays), TOLERANCE[dtype])


@pytest.mark.skipif(jax.__version_info__ < (0, 9), reason="before 0.9, JAX computes no bfloat16 on a CPU")
@pytest.mark.parametrize("attend", [xla_attention, blockwise_attention], ids=["xla", "blockwise"])
def test_a_cpu_computes_several_clips_in_bfloat16(attend):
    """For more than one, XLA has no product with sums in float32 that the gradient may take."""
    arrays = [jnp.concatenate([each, each[:, ::-1]]) for each in draw(*SHAPES[0], "bfloat16")]
    assert_close(jax.jit(partial(numbers, attend))(*arrays), exact(arrays), TOLERANCE["bfloat16"])


def test_a_cpu_multiplies_in_the_form_that_is_quick():
    """Factors on the left are contracted along their last axis: others take no quick library, but longer."""
    arrays = draw(*SHAPES[1], "float32")
    program = jax.jit(partial(numbers, blockwise_attention)).lower(*arrays).compile().as_text()
    assert re.findall(r" dot\(.*lhs_contracting_dims={(.)}", program) == ["1"] * 7


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("attend", [xla_attention, blockwise_attention], ids=["xla", "blockwise"])
def test_products_on_a_gpu_are_of_what_is_given(attend, dtype):
    """And sums in float32, forward and backward: products in float32 would leave matrix units idle."""
    arrays = draw(*SHAPES[2], dtype)
    with compiling_for(T4):
        traced = jax.jit(lambda *each: numbers(attend, *each)).trace(*arrays)
    assert_close(traced.lower().compile()(*arrays), exact(arrays), TOLERANCE[dtype])
    factors = {each.aval.dtype for each in dot_operands(traced.jaxpr.jaxpr)}
    assert factors == {jnp.dtype(dtype)}


def dot_operands(jaxpr):
    """The factors of all products of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            assert equation.outvars[0].aval.dtype == jnp.float32
            yield from equation.invars
        for inner in inner_programs(equation):
            yield from dot_operands(inner)


def inner_programs(equation):
    """The bodies of loops and calls."""
    for parameter in jax.tree.leaves(equation.params, is_leaf=lambda each: hasattr(each, "eqns")):
        inner = getattr(parameter, "jaxpr", parameter)
        if hasattr(inner, "eqns"):
            yield inner


def filled_up_splash(q, k, v):
    (_, queries, _, _), keys = q.shape, k.shape[1]
    q, k, v = (
        jnp.pad(each, ((0, 0), (0, filled_length(each.shape[1], each.dtype) - each.shape[1]), (0, 0), (0, 0)))
        for each in (q, k, v)
    )
    return splash_attention(q, k, v, keys, interpret=True)[:, :queries]


@pytest.mark.parametrize(("queries", "keys", "width"), [(160, 160, 64), (141, 300, 80)])
def test_splash_interpreted(queries, keys, width):
    arrays = draw(queries, keys, width, "float32")
    assert_close(numbers(filled_up_splash, *arrays), exact(arrays), 1e-5)


@pytest.mark.parametrize(
    ("length", "in_16_bits", "in_32_bits"),
    [
        (1, 128, 128),
        (784, 896, 896),
        (1408, 1408, 1536),
        (1568, 1664, 1792),
        (3136, 3200, 3200),
        (6272, 6272, 6272),
    ],
)
def test_lengths_of_splash_attention(length, in_16_bits, in_32_bits):
    assert filled_length(length, jnp.dtype("bfloat16")) == in_16_bits
    assert filled_length(length, jnp.dtype("float32")) == in_32_bits


@pytest.mark.parametrize(
    ("length", "forward", "backward", "at_once"),
    [(512, 512, 512, 512), (1664, 1664, 1664, 128), (3200, 3200, 640, 640), (12544, 6272, 896, 896)],
)
def test_keys_that_splash_attention_takes_at_once(length, forward, backward, at_once):
    sizes = block_sizes(length, length, jnp.dtype("bfloat16"))
    assert (sizes.block_kv, sizes.block_kv_compute) == (forward, forward)
    assert (sizes.block_kv_dkv, sizes.block_kv_dkv_compute) == (backward, at_once)


@pytest.mark.parametrize("num_queries", [520, 515])
def test_a_block_on_a_tpu_is_the_same(num_queries, monkeypatch):
    """Products by heads, and tokens filled up around the kernel, beside what a CPU does."""
    block = Block(VideoMAEConfig(dtype="float32"), 2, 32)
    x = jax.random.normal(jax.random.key(0), (2, 520, 32))
    params = block.init(jax.random.key(1), x)["params"]
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(2), leaf.shape), params)

    def both(params, x):
        return jnp.sum(block.apply({"params": params}, x, num_queries) ** 3)

    here = jax.jit(jax.value_and_grad(both, argnums=(0, 1)))(params, x)
    monkeypatch.setattr(module, "splash_attention", partial(splash_attention, interpret=True))
    with compiling_for(TPU):
        there = jax.jit(jax.value_and_grad(both, argnums=(0, 1)))(params, x)
    assert_close(jax.tree.leaves(there), jax.tree.leaves(here), 1e-5)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN's attention needs an NVIDIA GPU")
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_cudnn(shape):
    arrays = draw(*shape, "bfloat16")
    assert_close(numbers(cudnn_attention, *arrays), exact(arrays), 3e-2)


FOR_CUDNN = [(1411, 1568, 64), (611, 1009, 80), (64, 75, 64), (63, 64, 44), (9, 7, 12), (8, 8, 16)]


@pytest.fixture
def cudnn_here(monkeypatch):
    """JAX's own attention in place of cuDNN's, given what that would be, behind JAX's check of it."""
    real = jax.nn.dot_product_attention

    def plain(q, k, v, *, scale, implementation):
        assert implementation == "cudnn"
        fused_attention_stablehlo.check_is_flash_attention(q, k, v, 0, 91000, True, True)
        return real(q, k, v, scale=scale, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", plain)


@pytest.mark.usefixtures("cudnn_here")
@pytest.mark.parametrize("shape", FOR_CUDNN[1:], ids=str)
def test_what_cudnn_does_not_take_is_filled_up_and_cut_off(shape):
    arrays = draw(*shape, "float32")
    assert_close(jax.jit(partial(numbers, cudnn_attention))(*arrays), exact(arrays), 1e-5)
    # The key that is added must not count where all true scores are far below 0.
    q, k, v, _ = arrays
    low = jnp.full_like(q, 3), k - 3, v
    np.testing.assert_allclose(cudnn_attention(*low), xla_attention(*low), atol=1e-4)


@pytest.mark.parametrize("shape", FOR_CUDNN, ids=str)
def test_cudnn_lowers_forward_and_backward_without_a_gpu(shape, monkeypatch):
    """As far as JAX's part of it goes, which is what refused odd lengths and other widths."""
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91000)
    traced = jax.jit(partial(numbers, cudnn_attention)).trace(*draw(*shape, "bfloat16"))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("stablehlo.custom_call @CustomSPMDPartitioning") + text.count("__cudnn$fmha") >= 2
    assert [each.shape[1:] for each in traced.out_info] == [
        (shape[0], 2, shape[2]),
        (shape[0], 2, shape[2]),
        (shape[1], 2, shape[2]),
        (shape[1], 2, shape[2]),
    ]


def chosen(monkeypatch, backend, queries, keys, dtype="bfloat16", width=8):
    """Which way `attention` takes."""
    for name in ("xla", "blockwise", "splash", "cudnn"):
        monkeypatch.setattr(module, f"{name}_attention", lambda q, k, v, *rest, name=name: name)
    shape = (1, queries, 2, width), (1, keys, 2, width)
    # The signature's check would look for arrays in what is returned.
    plain = getattr(attention, "__wrapped__", attention)
    return plain(*(jnp.zeros(each, dtype) for each in (*shape, shape[1])), backend)


@pytest.mark.parametrize(
    ("where", "dtype", "auto", "way"),
    [
        (CPU, "float32", "float32", "blockwise"),
        (TPU, "bfloat16", "bfloat16", "splash"),
        (T4, "float16", "float16", "blockwise"),
        (A100, "float32", "bfloat16", "blockwise"),
        (A100, "bfloat16", "bfloat16", "cudnn"),
        (H100, "float16", "bfloat16", "cudnn"),
        (MI300, "bfloat16", "bfloat16", "blockwise"),
    ],
    ids=lambda each: getattr(each, "kind", each),
)
def test_auto_goes_by_what_is_compiled_for_and_by_length(monkeypatch, where, dtype, auto, way):
    with compiling_for(where):
        assert where.dtype == auto
        assert chosen(monkeypatch, "auto", 1408, 1568, dtype) == way
        assert chosen(monkeypatch, "auto", 160, 160, dtype) == "xla"
        assert chosen(monkeypatch, "auto", 1, 1568, dtype) == "xla"
        said = arithmetic(VideoMAEConfig(dtype="auto", attention="xla"))
        assert said == {"dtype": auto, "attention": "xla"}
    assert hardware().platform == jax.default_backend()


@pytest.mark.parametrize(
    ("where", "keys", "width", "way"),
    [
        (A100, 1568, 128, "cudnn"),
        (A100, 1569, 128, "blockwise"),
        (A100, 1568, 129, "blockwise"),
        (H100, 1569, 248, "cudnn"),
        (H100, 1568, 257, "blockwise"),
    ],
)
def test_heads_too_wide_for_cudnn_are_left_to_blocks(where, keys, width, way):
    with compiling_for(where):
        assert chosen_backend("auto", jnp.dtype("bfloat16"), 1568, keys, width) == way


def test_a_choice_overrides_but_for_short_sequences(monkeypatch):
    for backend, where in (("xla", H100), ("blockwise", H100), ("splash", TPU), ("cudnn", H100)):
        with compiling_for(where):
            assert chosen(monkeypatch, backend, 1408, 1568) == backend
            assert chosen(monkeypatch, backend, 160, 160) == "xla"


@pytest.mark.parametrize(
    ("where", "backend", "dtype", "width", "said"),
    [
        (H100, "splash", "bfloat16", 64, "'splash' is a kernel for TPUs, which NVIDIA H100 80GB HBM3 is not"),
        (CPU, "splash", "float32", 64, "'splash' is a kernel for TPUs, which cpu is not"),
        (CPU, "cudnn", "bfloat16", 64, "compute capability 8.0 .Ampere. or newer, which cpu is not"),
        (T4, "cudnn", "float16", 64, "compute capability 8.0 .Ampere. or newer, which Tesla T4 is not"),
        (MI300, "cudnn", "bfloat16", 64, "which AMD Instinct MI300X is not"),
        (H100, "cudnn", "float32", 64, "bfloat16 and float16, not float32; set --model.dtype bfloat16 or"),
        (A100, "cudnn", "bfloat16", 130, "up to 128 values on NVIDIA A100-SXM4-80GB, and these have 136"),
    ],
)
def test_a_choice_that_cannot_be_computed_is_an_error_with_the_way_out(where, backend, dtype, width, said):
    with compiling_for(where):
        with pytest.raises(InputError, match=f"{said}.*--model.attention auto$"):
            chosen_backend(backend, jnp.dtype(dtype), 1408, 1568, width)
        assert chosen_backend(backend, jnp.dtype(dtype), 160, 160, width) == "xla"
        config = VideoMAEConfig(dtype=dtype, attention=backend, hidden_size=3 * width, num_attention_heads=3)
        with pytest.raises(InputError, match=said):  # As a run asks before its first step.
            arithmetic(config)


def products(jaxpr):
    """How many products of arrays a program has, counting the body of a loop once."""
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == "dot_general"
        count += sum(map(products, inner_programs(equation)))
    return count


def products_of_a_step(apply, layers, remat):
    """Of a stack of so many layers, forward and backward."""
    block = Block(VideoMAEConfig(), 2, 64)
    stack = init_stack(jax.random.key(0), block, layers, 32)
    tokens = jnp.ones((1, 600, 32))
    loss = jax.grad(lambda stack, x: jnp.sum(apply(block, stack, x, remat)), argnums=(0, 1))
    return products(jax.make_jaxpr(loss)(stack, tokens).jaxpr)


def in_a_loop(block, stack, x, remat):
    return apply_stack(block, stack, x, remat)[0]


def to_the_last(block, stack, x, remat):
    return apply_stack_to_last(block, stack, x, remat, x.shape[1])


@pytest.mark.parametrize("remat", [False, True])
def test_the_backward_pass_repeats_no_product_unless_asked_to(remat):
    # Forward four with weights and two of attention; backward twice the four, and five of attention.
    wanted = 4 + 2 + 2 * 4 + 5
    repeated = products_of_a_step(in_a_loop, 1, remat) - wanted
    assert repeated > 0 if remat else repeated == 0


@pytest.mark.parametrize("there", [CPU, TPU, T4, H100])
def test_a_last_block_is_computed_again_on_tpus_only(there):
    """Its backward pass comes first and needs at once what would have been kept."""
    with compiling_for(there):
        plain, again = (
            products_of_a_step(to_the_last, 2, remat) - products_of_a_step(in_a_loop, 1, remat)
            for remat in (False, True)
        )
    assert again > plain if there == TPU else again == plain
