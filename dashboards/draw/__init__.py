"""Pictures of the dashboards for documents and reviews, drawn by matplotlib as Grafana would.

Only `dashboards.draw` needs matplotlib, which comes with the tools of developers; neither the agent
nor its commands import it. All that is shown is what `dashboards.frames` answers.
"""
