"""Measuring side by side: variants of one question in alternating rounds on one real PostgreSQL, and what came of it as a page."""
