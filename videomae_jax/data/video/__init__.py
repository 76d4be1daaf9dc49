"""Videos to frames: every frame right, or refused for the true reason."""
