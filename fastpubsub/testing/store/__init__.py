"""Stores messages in plain Python by the rules of PostgreSQL; the caller passes the time.

tests/database/test_model.py does random calls to it and to the database, and compares them after each.
"""
