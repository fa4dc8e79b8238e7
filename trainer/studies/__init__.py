"""Studies: algorithms × rewards × seeds, run cell by cell and compared (`ddpo compare`)."""
