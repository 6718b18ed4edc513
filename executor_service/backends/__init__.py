"""Where runs are carried out: one file each, found by entry point."""
