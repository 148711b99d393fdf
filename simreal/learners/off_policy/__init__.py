"""Learners on replayed experience, actor-critics and those of values alone, and their replay with hindsight."""
