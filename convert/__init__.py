"""Published VideoMAE checkpoints in, any form out, with proof: the only place that imports torch.

In a checkout it runs as `python -m convert`; in the wheel it is `videomae_jax.convert`, and modules here
import each other relatively for that reason. `videomae-jax convert` is the same program in both.
"""
