"""The leader's work: tick, dispatch, watch executors, keep leases, give up what is lost. Knows neither gRPC nor PostgreSQL."""
