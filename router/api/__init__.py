"""What clients see of the router: one file per part of the API."""
