"""Tiny raw scenes in the datasets' own formats, written by the tests that read them back."""
