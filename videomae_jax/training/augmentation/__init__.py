"""What clips to fine-tune on go through, on the device."""
