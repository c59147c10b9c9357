"""Files for the runtimes, checked against PyTorch."""
