"""The systems that `fastce bench` can time: fastce and its peers, one file each."""
