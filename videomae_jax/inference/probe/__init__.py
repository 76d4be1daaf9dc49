"""`videomae-jax probe`."""
