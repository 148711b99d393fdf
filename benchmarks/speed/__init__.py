"""Speed as ratios within one process: `python -m benchmarks.speed`. Medians of interleaved measurements."""
