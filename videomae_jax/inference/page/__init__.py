"""A page in a browser on which checkpoints can be tried."""
