"""`rooflight top`: a live view of this node, or of all nodes of a job, in a terminal."""
