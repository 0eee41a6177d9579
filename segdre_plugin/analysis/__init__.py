"""Looking at data, predictions and runs: evaluation, statistics, reports, studies."""
