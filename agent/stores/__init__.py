"""Where points live and are asked for."""
