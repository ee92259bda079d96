"""Scores over HTTP, in the dialects of the rerankers that people have clients for. Needs the extra `server`."""
