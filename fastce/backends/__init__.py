"""(3) Packed batches to logits: one folder or file per backend, all behind `base.Backend`."""
