"""Speed and memory measurements: `make bench`."""
