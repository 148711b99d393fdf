"""What a run tells while it trains: progress, statistics of episodes, tables and TensorBoard events."""
