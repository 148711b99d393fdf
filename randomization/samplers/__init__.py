"""What chooses the worlds: fixed ranges and points (`base`), `adr`, `doraemon`, an earlier run's ranges (`frozen`)."""
