"""Logs of robots as arrays: MCAP, rosbag2, CSV and NumPy files are read into signals with names and times."""

from .read import read_log
from .signals import Log, Signal

__all__ = ["Log", "Signal", "read_log"]
