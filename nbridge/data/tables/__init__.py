"""Tables: csv, Parquet and data frames."""
