"""Write a CSV file as Parquet, with the types that its columns look like. Usage: to_parquet.py IN.csv OUT.parquet"""

import sys

import pyarrow.csv
import pyarrow.parquet

pyarrow.parquet.write_table(pyarrow.csv.read_csv(sys.argv[1]), sys.argv[2])
