"""Store videos as a data set from which clips are read quickly: the command `videomae-jax prepare`."""
