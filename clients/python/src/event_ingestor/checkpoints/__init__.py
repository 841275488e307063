"""The checkpoints: in memory, SQLite and Postgres."""
