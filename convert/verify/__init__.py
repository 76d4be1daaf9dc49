"""Proof that two checkpoints compute the same, stage by stage."""
