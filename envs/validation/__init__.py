"""Whether a task does what it says, found out before and while it is used; every difference is one line."""
