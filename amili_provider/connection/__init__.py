"""
The connection of type ``amili``: its fields, the forms made of them, and the settings read from it.

``fields`` is the one table; ``form`` turns it into Airflow's connection form, and knows
which keys count; ``settings`` reads a connection by it; ``values`` checks single values. Nothing here imports Airflow,
and nothing is imported here: every process of Airflow reads the form.
"""
