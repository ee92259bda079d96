"""`fastce bench`: throughput and latency of fastce and its peers, timed interleaved in one run."""
