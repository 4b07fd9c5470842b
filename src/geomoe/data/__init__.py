"""Data sets, degradations and splits. Nothing here imports rasterio unless a file needs it."""
