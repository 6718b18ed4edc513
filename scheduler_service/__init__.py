"""The scheduler service: decides whether the next task may start, where, and if not, why not."""
