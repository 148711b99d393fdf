"""From a configuration to a run directory: `run_config`, `build`, `trainer`, `checkpoint`, `metrics_log`."""
