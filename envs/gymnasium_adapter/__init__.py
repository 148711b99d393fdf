"""Any Gymnasium environment that holds an mjModel and an mjData, unmodified, as a task and an engine."""
