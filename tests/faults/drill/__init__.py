"""Each alert is provoked once in the running service, fires, and ends by the steps of its runbook."""
