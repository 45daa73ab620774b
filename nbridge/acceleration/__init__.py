"""Device, precision and whatever else makes training faster, applied from outside: models never mention them."""
