"""Policies that look at pictures: `layout` says what they see, `encoder` makes numbers of it, `frames` keeps pictures,
`policy` is what is exported; `sac` and `ppo` learn."""
