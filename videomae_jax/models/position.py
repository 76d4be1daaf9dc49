"""The fixed sine and cosine table of token positions."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float


@lru_cache
def sinusoid_table(num_tokens: int, width: int) -> Float[np.ndarray, "n d"]:
    """Interleaved sines and cosines of the flattened token index, float32.

    The angle of column j is n / 10000^(2 (j // 2) / d), sine where j is even (Vaswani et al., 2017). It is
    computed in float64: the arguments reach 1567, where float32 has lost the third digit.
    """
    column = np.arange(width)
    angle = np.arange(num_tokens)[:, None] / np.power(10000.0, 2 * (column // 2) / width)
    return np.where(column % 2 == 0, np.sin(angle), np.cos(angle)).astype(np.float32)
