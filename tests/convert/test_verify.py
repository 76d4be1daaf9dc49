"""The proof passes for what is the same, fails for what is not, and says where."""

import sys
from dataclasses import replace

import jax
import pytest
from random_checkpoints import DECODER, FLAGS, TINY, random_tensors, save_pth

torch = pytest.importorskip("torch", reason="torch is not installed (the extra convert)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra parity)")

STAGES = {
    "pretraining": ("embedding", "encoder block 1", "encoder norm", "encoder to decoder", "decoder block 0",
                    "decoder block 1", "decoder norm", "logits", "loss"),
    "classification": ("embedding", "encoder block 0", "encoder block 1", "mean and fc_norm", "logits"),
    "no-head": ("embedding", "encoder block 0", "encoder block 1", "mean and fc_norm", "logits"),
    "encoder": ("embedding", "encoder block 0", "encoder block 1", "encoder norm"),
}  # fmt: skip


def checkpoint(tmp_path, kind, name="a.pth", **changes):
    config = {
        "pretraining": TINY,
        "classification": replace(TINY, num_labels=3),
        "no-head": TINY,
        "encoder": replace(TINY, use_mean_pooling=False),
    }[kind]
    tensors = random_tensors(config, "classification" if kind == "no-head" else kind)
    for tensor, change in changes.items():
        tensors[tensor.replace("__", ".")] += change
    return save_pth(tmp_path / name, tensors), FLAGS + (DECODER if kind == "pretraining" else ())


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("form", ["hf", "orbax", "torch"])
def test_every_stage_of_every_form_passes(convert, tmp_path, kind, form):
    source, flags = checkpoint(tmp_path, kind)
    target = tmp_path / ("b.pth" if form == "torch" else "b")
    code, said = convert(source, target, "--to", form, *flags, "--verify")
    assert code == 0, said
    table = {line[:20].strip(): line.split()[-1] for line in said.splitlines() if line.endswith(" pass")}
    assert all(stage in table for stage in STAGES[kind]), said
    assert target.exists()
    assert convert("verify", source, target, *flags)[0] == 0


@pytest.mark.parametrize("command", ["convert", "verify"])
def test_products_are_in_full_float32(convert, tmp_path, monkeypatch, command):
    """GPUs would take TF32, whose error is larger than what is allowed."""
    source, flags = checkpoint(tmp_path, "pretraining")
    assert convert(source, tmp_path / "a", "--to", "hf", *flags)[0] == 0
    ours, asked = sys.modules["videomae_jax.convert.verify.jax_stages"], []
    for name in ("tree_from_original", "apply_block"):  # The first thing of all, and the last of the decoder.
        plain = getattr(ours, name)

        def spy(*arguments, plain=plain):
            asked.append(jax.config.jax_default_matmul_precision)
            return plain(*arguments)

        monkeypatch.setattr(ours, name, spy)
    if command == "verify":
        assert convert("verify", source, tmp_path / "a", *flags)[0] == 0
    else:
        assert convert(source, tmp_path / "b", "--to", "hf", *flags, "--verify")[0] == 0
    assert len(asked) > 1
    assert set(asked) == {"highest"}
    assert jax.config.jax_default_matmul_precision is None


@pytest.mark.parametrize("kind", ["pretraining", "classification"])
def test_resized_positions_are_verified_with_those_that_were_learned(convert, tmp_path, kind):
    """transformers builds its table anew; given the one of the weights, it computes the same."""
    source, flags = checkpoint(tmp_path, kind)
    assert convert(source, tmp_path / "a", "--to", "hf", *flags)[0] == 0
    size = ("--num-frames", 8, "--image-size", 24)
    code, said = convert(tmp_path / "a", tmp_path / "b", "--to", "hf", *size, "--verify")
    assert code == 0, said
    assert "transformers and the original code build one anew" in said
    assert convert("verify", tmp_path / "b", tmp_path / "b")[0] == 0


def test_half_precision_is_verified_as_it_was_cast(convert, tmp_path):
    source, flags = checkpoint(tmp_path, "pretraining")
    code, said = convert(source, tmp_path / "b", "--to", "hf", *flags, "--dtype", "bfloat16", "--verify")
    assert code == 0, said
    code, said = convert("verify", source, tmp_path / "b", *flags)
    assert code == 1, "bfloat16 rounds, and the proof did not see it"


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"encoder__patch_embed__proj__bias": 0.01}, "embedding"),
        ({"encoder__blocks__1__attn__v_bias": 0.01}, "encoder block 1"),
        ({"decoder__blocks__0__attn__q_bias": 3}, "decoder block 0"),
        ({"decoder__head__bias": 0.01}, "logits"),
        ({"decoder__head__bias": float("nan")}, "logits"),
    ],
)
def test_a_changed_tensor_fails_at_its_stage(convert, tmp_path, changes, first):
    a, flags = checkpoint(tmp_path, "pretraining")
    b, _ = checkpoint(tmp_path, "pretraining", "b.pth", **changes)
    code, said = convert("verify", a, b, *flags)
    assert code == 1
    assert f"FAIL, first at {first}" in said


def test_other_heads_are_another_architecture(convert, tmp_path):
    source, flags = checkpoint(tmp_path, "pretraining")
    assert convert(source, tmp_path / "a", "--to", "hf", *flags)[0] == 0
    assert convert(source, tmp_path / "b", "--to", "orbax", *flags[2:], "--num-heads", "2")[0] == 0
    code, said = convert("verify", tmp_path / "a", tmp_path / "b")
    assert code == 2
    assert "num_attention_heads = 4" in said
    assert "num_attention_heads = 2" in said


def test_a_result_that_differs_is_not_kept(convert, tmp_path, monkeypatch):
    source, flags = checkpoint(tmp_path, "pretraining")
    assert convert(source, tmp_path / "a", "--to", "hf", *flags)[0] == 0
    program = sys.modules["videomae_jax.convert.command"]
    write = program.write_hugging_face

    def damage(folder, config, tensors, *others):
        changed = tensors | {"decoder.head.bias": tensors["decoder.head.bias"] + 0.01}
        write(folder, config, changed, *others)

    monkeypatch.setattr(program, "write_hugging_face", damage)
    code, said = convert(source, tmp_path / "b", "--to", "hf", *flags, "--verify")
    assert code == 1
    assert "FAIL, first at logits" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "a.pth"]
