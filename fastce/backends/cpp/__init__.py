"""The CPU engine: a whole encoder in one call of `fastce._core`."""
