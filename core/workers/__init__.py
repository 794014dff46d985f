"""The workers of a deployment as all parts name them: ids, records, and how their ranks lie on nodes."""
