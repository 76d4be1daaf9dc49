"""What cuDNN's attention takes for itself, of which XLA knows only where there is a GPU."""

import re

_BACKWARD = re.compile(
    r"= \(b?f16\[(\d+),(\d+),(\d+),(\d+)\][^\n]*custom_call_target=\"__cudnn\$fmha\w*Backward\""
)


def attention_workspace(hlo: str) -> int:
    """Bytes of the largest backward pass in a program: a float32 for each value of the queries, and one more
    for each query. None of these are there at the same time."""
    shapes = [map(int, found) for found in _BACKWARD.findall(hlo)]
    return max(
        (4 * clips * heads * queries * (width + 1) for clips, heads, queries, width in shapes), default=0
    )
