"""The gRPC service that the executor offers."""
