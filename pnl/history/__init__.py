"""Any range and bucket of what was recorded, answered by DuckDB in a process of its own.

DuckDB brings a SQLite of its own, and two of them in one process lose each other's locks on a file: rows that were
acknowledged are gone without an error. So nothing in here is imported by whoever writes but `client`, and the process
that it starts (`worker`) imports neither `sqlite3` nor the store.
"""
