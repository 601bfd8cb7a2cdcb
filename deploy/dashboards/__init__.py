"""The Grafana dashboards, written as Python; `python -m deploy.dashboards` makes the JSON that is shipped."""
