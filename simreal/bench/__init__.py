"""`simreal bench`: speed as ratios within one process. Medians of interleaved measurements, no absolute promises."""

from simreal.bench.command import bench_command

__all__ = ["bench_command"]
