"""Augmentation of fine-tuning clips, on the device."""
