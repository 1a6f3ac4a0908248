"""What the node can do: reference phases, ceilings, labels."""
