"""What every floor uses: errors, names of a model's objects, random numbers, rigid-body algebra, readers of files."""
