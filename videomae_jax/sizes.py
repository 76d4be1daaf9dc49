"""The published sizes of the model."""

from videomae_jax.model_config import VideoMAEConfig


def _size(width: int, layers: int, heads: int, decoder: tuple[int, int, int], **changes) -> VideoMAEConfig:
    decoder_width, decoder_layers, decoder_heads = decoder
    sizes = {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "decoder_hidden_size": decoder_width,
        "decoder_num_hidden_layers": decoder_layers,
        "decoder_num_attention_heads": decoder_heads,
        "decoder_intermediate_size": 4 * decoder_width,
    }
    return VideoMAEConfig(**(sizes | changes))


SIZES = {
    "small": _size(384, 12, 6, (192, 4, 3)),
    "base": _size(768, 12, 12, (384, 4, 6)),
    "large": _size(1024, 24, 16, (512, 12, 8)),
    "huge": _size(1280, 32, 16, (640, 12, 8)),
    # The MLP ratio 48/11 holds in the decoder too: int(512 * 48 / 11).
    "giant": _size(
        1408, 40, 16, (512, 4, 8), patch_size=14, intermediate_size=6144, decoder_intermediate_size=2234
    ),
}
"""The published sizes, small to huge with their V1 decoders and giant with that of V2."""
