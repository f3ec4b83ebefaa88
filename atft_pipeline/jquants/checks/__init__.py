"""Checks of stored raw tables: what must hold in a row, between rows, and between a table and the calendar.

Ingestion refuses incomplete answers already; these re-read what lies in the lake, whoever wrote it. A table gets the
structural checks by its declaration and its row rules by its name (`rules_for`); `judge_table` evaluates all of them
in one pass, month by month.
"""
