"""Metrics, statistics, tables and figures: how every method is judged."""
