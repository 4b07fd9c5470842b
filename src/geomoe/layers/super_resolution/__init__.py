"""What super-resolution knows of an image beforehand, and keeps of it afterwards."""
