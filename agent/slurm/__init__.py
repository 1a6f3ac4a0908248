"""Slurm: whose job is it, where does it run, what does Slurm itself know of it."""
