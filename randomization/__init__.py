"""Randomization of environments: parameters, what each writes, samplers and ADR. Users reach it through `simreal`."""
