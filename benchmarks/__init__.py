"""What this project measures about itself; run in a checkout, not part of the wheel."""
