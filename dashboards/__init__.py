"""What people look at: dashboards, built from the catalogue."""
