"""A network that reads where things are from pictures: `config`, `targets` (what it reads), `network`, `trainer`,
`looks` and `assess` (how well it does, and where), `in_loop` (a policy that runs on it); `command` is
`simreal estimate`."""
