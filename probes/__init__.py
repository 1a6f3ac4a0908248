"""What the node says: one file per source."""
