"""What this floor shares: the error that users see, files that appear whole or not at all, JSON, named code, `logs`."""
