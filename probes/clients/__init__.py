"""Counters of shared file systems' clients, one parser a file."""
