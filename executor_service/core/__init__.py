"""Decisions as pure code: no clock, no asyncio, no I/O, no logging, no protobuf."""
