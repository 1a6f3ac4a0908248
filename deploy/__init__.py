"""How a site runs rooflight: units, hooks, configuration files."""
