"""Many devices, many processes, and programs that are exported."""
