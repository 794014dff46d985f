"""The site profile: what has been measured of a cluster."""
