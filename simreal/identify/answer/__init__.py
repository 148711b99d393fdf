"""What was found: `files` as a randomization block, a world, JSON and lines to read; `page` for the eye."""
