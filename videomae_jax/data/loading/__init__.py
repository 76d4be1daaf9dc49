"""Batches of clips from worker processes."""
