"""Published file formats: reads their files as samples, and writes samples to them."""
