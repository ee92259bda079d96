"""The GPU engine: the ops on Triton kernels, forward and backward. One file a kernel."""
