"""
A person's view: the connection form and a DAG's graph in a real browser, in front of a real Airflow 3.3.

``python -m tests.suites.browser`` fills the form, saves it, reads it back, and takes the screenshots of the README. It
needs Debian's packages ``chromium`` and ``chromium-driver``, and ``selenium`` from pip, so it is in none of the rings.
"""
