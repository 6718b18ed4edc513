"""What ours is measured beside. Each peer is a program of its own; those of other packages run in .bench/venv or on .bench/node."""
