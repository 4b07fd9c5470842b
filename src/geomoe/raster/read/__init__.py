"""A raster file opened safely and read in windows: bands, validity, radiometry, what is known of it."""
