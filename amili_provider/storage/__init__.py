"""The doors to storages: what is there, its bytes, and moving it when it is delivered."""
