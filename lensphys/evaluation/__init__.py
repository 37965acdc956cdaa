"""Metrics, statistics, tables and figures: how every method is judged (floor 10)."""
