"""fastce inside of other packages: a module each, imported by whoever wants it."""
