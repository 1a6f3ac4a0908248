"""The commands for Grafana's dashboards."""
