"""The dashboards, a module for each page."""

from dashboards.dashboard import Dashboard
from dashboards.pages.agents import agents
from dashboards.pages.cluster import cluster
from dashboards.pages.gpus import gpus
from dashboards.pages.job import job
from dashboards.pages.node import node
from dashboards.pages.phases import phases


def all_dashboards() -> tuple[Dashboard, ...]:
    """Return every dashboard, in the order of the links at their top."""
    return (cluster(), job(), node(), gpus(), phases(), agents())
