"""Linear layers: one table (table.py) that picks a kernel by device, dtype and number of rows, and the kernels."""
