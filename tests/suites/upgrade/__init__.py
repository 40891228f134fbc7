"""Connections that outlive an upgrade: saved with the form of Airflow 2, read by the Airflow of today."""
