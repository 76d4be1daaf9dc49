"""`videomae-jax reconstruct`."""
