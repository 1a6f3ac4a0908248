"""`rooflight workload`: commands around the reference workloads, and how results are shown."""
