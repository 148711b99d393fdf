"""Pictures with what they show, for a network to learn from: `plan` says which, `maker` renders them a chunk at a time,
`workers` on all processors, `folder` keeps them on the disk; `command` is `simreal render`."""
