"""What any gRPC service of ours stands on. Knows no word of what the services do, and imports nothing of theirs."""
