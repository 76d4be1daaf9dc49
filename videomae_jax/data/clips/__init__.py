"""Which frames and which part of them are read of a video."""
