"""One model over several processes: tensor parallelism within a stage, pipeline stages one after the other."""
