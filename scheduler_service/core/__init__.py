"""The pure rules of scheduling: no clock, no I/O, no asyncio; `now` is always an argument."""
