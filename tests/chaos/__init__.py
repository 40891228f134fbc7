"""Chaos: real tasks of a real Airflow against the sandbox, under seeded faults and killed workers."""
