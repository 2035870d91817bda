"""Tests of the serving room; a package, because its conftest stands beside that of the root."""
