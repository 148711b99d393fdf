"""A policy as C99 for a microcontroller: `writer.c_files` from its layers; kernels.c, policy.h, test_policy.c and the
Makefile are what does not depend on the policy."""
