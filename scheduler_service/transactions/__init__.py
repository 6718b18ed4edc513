"""One function, one database transaction: gathered rows in, pure decisions of `core`, rows out.

Written once against the Protocols of `ports.py`; PostgreSQL and the tests' memory store both carry them out.
"""
