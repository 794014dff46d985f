"""Workers that compute nothing: what routers are measured and tried with."""
