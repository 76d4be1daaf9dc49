"""Published VideoMAE checkpoints in, any form out, with proof.

`command` asks `read`, `configure`, `write` and `verify` in this order; `publish` puts the result in place.
Only `pickles` and `verify.torch_stages` import torch, once they are needed. In a checkout the package runs as
`python -m convert`; in the wheel it is `videomae_jax.convert`, and modules here import each other relatively
for that reason. `videomae-jax convert` is the same program in both.
"""
