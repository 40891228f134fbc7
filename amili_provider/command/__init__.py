"""The command ``amili-ledger``, and the form of the DAG ``amili_ledger``: the same actions, on the same functions."""
