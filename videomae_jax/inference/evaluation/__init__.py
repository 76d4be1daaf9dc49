"""`videomae-jax evaluate`."""
