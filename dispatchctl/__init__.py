"""The operators' command line: a gRPC client of the scheduler, and `up`, which runs both services on this machine."""
