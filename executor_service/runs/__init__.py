"""Runs: accepted, journalled, begun, watched, kept until acknowledged."""
