"""Files of records, a module for each kind of file."""
