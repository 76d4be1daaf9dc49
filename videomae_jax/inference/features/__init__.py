"""`videomae-jax features`."""
