"""Tests of plainlog, with the standard library alone."""
