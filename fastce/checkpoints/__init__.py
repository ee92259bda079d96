"""Hugging Face checkpoints: found, checked, described in fastce's words, and written again."""
