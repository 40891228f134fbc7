"""The Deliveries page in Airflow: 3.1 and newer."""
