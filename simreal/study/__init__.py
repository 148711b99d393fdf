"""Several trainings and their evaluations, described in one file and made by one command; and what a policy knows."""
