"""The executor: one a machine. Checks what the machine can take, refuses duplicates, runs tasks and reports over one stream."""
