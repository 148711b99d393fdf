"""HandReach and HandManipulate of gymnasium-robotics: `reach`, `manipulate`, and what they share in `common`."""
