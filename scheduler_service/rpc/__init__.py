"""The scheduler's gRPC side: the service that it offers and the executors that it calls."""
