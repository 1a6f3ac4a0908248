"""The daemon, its stores, its command line, and jobinspect."""
