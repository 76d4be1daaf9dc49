"""What a run says and writes about itself."""
