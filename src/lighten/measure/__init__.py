"""What is measured: moments, latency, accuracy."""
