"""Tasks for arms and hands: `fetch`, `shadow_hand`, `adroit`, and `cube`, a hand that turns a cube in its palm."""
