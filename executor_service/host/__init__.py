"""The machine: its resources, its processes, and the guard of each local run."""
