"""The published file formats, read as samples and written from them."""
