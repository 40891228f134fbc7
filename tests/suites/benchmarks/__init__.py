"""Measurements, each as a ratio of two things measured side by side."""
