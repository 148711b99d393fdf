"""The log beside simulated ones of the same policy: `reference` plays them, `gains` and `compare` draw conclusions."""
