"""Runs the public S3 test suite, which is never part of this repository."""
