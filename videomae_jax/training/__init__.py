"""Pure training steps on a mesh of devices, and the loop that feeds them."""
