"""What is trained for: masked pixels, or classes."""
