"""Turn videos into a data set made for reading clips at random: the command `videomae-jax prepare`."""
