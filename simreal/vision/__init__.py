"""Pictures: `rendering` draws them, `datasets` keeps many with what they show, `estimator` learns to read them, and
`sensors` puts what is read in place of what would be measured, `live` shows a robot in the browser; `cli` has the
commands."""
