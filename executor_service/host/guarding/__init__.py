"""The parts of a run's guard. Standard library only: a guard of its own for every run must be small and quick to start."""
